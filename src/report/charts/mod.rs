//! Charts of the report: curves, histograms, scatter plots, confusion matrices, heat maps.
//!
//! Everything that charts have in common stands once: font, lettering and output in [`canvas`],
//! palettes and colour scales in [`colours`], axes in [`axes`]. A chart implements
//! [`canvas::Painting`]; the same chart becomes a picture of its own (PNG or SVG,
//! `report/picture.rs`) or an SVG inside the HTML page (`canvas::inline_svg`).
//!
//! One chart has a second back end: the contact map of the page (`report/contact_map/inline.rs`)
//! draws a short list of pairs as one path per colour, where `plotters` writes one rectangle per
//! cell of a dense matrix.

pub mod axes;
pub mod canvas;
pub mod colours;
mod confusion;
mod heat_map;
mod histogram;
pub mod lines;
mod scatter;

pub use confusion::ConfusionPlot;
pub use heat_map::HeatMap;
pub use histogram::Histogram;
pub use scatter::ScatterPlot;
