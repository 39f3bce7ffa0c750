//! Results to pages and pictures.
//!
//! - [`page`]: the results of a run as one HTML page
//! - [`charts`]: curves, histograms, scatter plots, confusion matrices, heat maps
//! - [`contact_map`]: contacts as CASP writes them, as a picture and as part of the page
//! - [`picture`]: a chart as a PNG or SVG file
//! - [`tensorboard`]: the curves of a training run for `TensorBoard`
//! - [`training_log`]: the log that curves are drawn from
//!
//! ```
//! use ankh3::report::charts::lines::{Curve, LineChart, LineStyle};
//! use ankh3::report::picture::{Picture, draw};
//!
//! let loss = Curve {
//!     name: "loss".to_owned(),
//!     points: vec![(1.0, 3.2), (2.0, 2.9), (3.0, 2.7)],
//!     style: LineStyle::Plain,
//! };
//! let chart = LineChart {
//!     title: "training".to_owned(),
//!     y_label: "loss per label".to_owned(),
//!     curves: vec![loss],
//! };
//! let folder = tempfile::tempdir()?;
//! let picture = Picture::of_path(&folder.path().join("loss.svg"))?;
//! draw(&picture, &chart)?;
//! assert!(std::fs::read_to_string(&picture.path)?.starts_with("<svg"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod charts;
pub mod contact_map;
pub mod error;
mod file;
mod numbers;
pub mod page;
pub mod picture;
pub mod tensorboard;
pub mod training_log;
