//! What one can ask of a model.

pub mod embedder;
pub mod generate;
pub mod pooling;
mod recent;
