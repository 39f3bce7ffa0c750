//! How a model is made: joint training on masked language modelling and sequence completion, after the paper (arXiv 2505.20052).
//!
//! A [`recipe`] says what is done; [`presets`] come with the tool. [`order`] shuffles sequences, [`objective`] makes examples of them, [`batch`] packs
//! examples; [`step`] is the loss of a batch and its gradients: on a CPU by `backprop`, a backward pass that is written down, elsewhere by candle's tape
//! ([`recompute`]: in less memory). [`optimizer`] and [`schedule`] move the weights, [`trainer`] holds the state of a run, [`evaluation`] measures it. Pure
//! but for the weights: reading sequences and saving checkpoints is the caller's.

mod backprop;
pub mod batch;
pub mod evaluation;
pub mod objective;
pub mod optimizer;
pub mod order;
pub mod presets;
pub mod recipe;
pub mod recompute;
pub mod schedule;
pub mod step;
pub mod trainer;
pub mod variables;
