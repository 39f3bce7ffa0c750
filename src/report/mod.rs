//! Results to pages and pictures: the HTML report, charts, contact maps, TensorBoard's event files.

pub mod curves;
pub mod heatmap;
pub mod page;
pub mod picture;
pub mod plots;
pub mod tensorboard;
