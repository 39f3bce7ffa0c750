//! Small heads on frozen embeddings, as the paper evaluates its model: what heads are, how they are
//! trained, how well they do.
//!
//! - [`features`]: the rows that a head reads, of a model or of [`residue_encoding`], cached in
//!   [`row_cache`]
//! - [`head`]: the network that is trained; [`convbert`] is its body, [`weights`] its parameters,
//!   [`description`] its file
//! - [`fit`]: training, with [`settings`] and [`loss`]; [`outputs`] applies a head
//! - [`report`] and [`metrics`]: measures with intervals
//! - [`native`]: the contacts of a known structure; [`structure_alignment`] maps them to another
//!   sequence
//! - [`contact_predictor`]: contact maps by any method; [`attention_maps`] and [`logistic`] fit the
//!   regression over attention; [`contact_evaluation`] measures precision
//!
//! ```
//! use ankh3::probe::metrics::numbers::{Ranked, ValuePair, mse};
//!
//! // Predicted and measured values of three proteins, each counted once.
//! let pairs = [(0.5, 1.0), (1.0, 2.0), (4.0, 3.0)]
//!     .map(|(predicted, measured)| ValuePair { predicted, measured });
//! let times = [1, 1, 1];
//! assert_eq!(mse(&pairs, &times), Some(0.75));
//! assert_eq!(Ranked::new(&pairs).spearman(&times), Some(1.0));
//! ```

pub mod attention_maps;
pub mod contact_evaluation;
pub mod contact_predictor;
pub mod convbert;
mod dense;
pub mod description;
pub mod error;
pub mod features;
pub mod fit;
pub mod head;
pub mod logistic;
pub mod loss;
pub mod metrics;
pub mod native;
pub mod outputs;
pub mod report;
pub mod residue_encoding;
pub mod row_cache;
pub mod settings;
pub mod structure_alignment;
pub mod weights;
