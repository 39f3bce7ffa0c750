//! Small heads on frozen embeddings, as the paper judges its model: what they are, how they learn, how well they do.
//!
//! [`head`] is what is trained ([`convbert`] its body), [`train`] how, [`loss`] towards what; [`logistic`] weighs attention maps; [`metrics`] are pure functions;
//! [`native`] says which residues of a known structure touch; [`blind`] are embeddings that know nothing but the residue.
//!
//! ```
//! use ankh3::probe::metrics::numbers::{Ranked, mse};
//!
//! // Predicted and true values of three proteins, each counted once.
//! let pairs = [(0.5, 1.0), (1.0, 2.0), (4.0, 3.0)];
//! let times = [1, 1, 1];
//! assert_eq!(mse(&pairs, &times), Some(0.75));
//! assert_eq!(Ranked::new(&pairs).spearman(&times), Some(1.0));
//! ```

pub mod blind;
pub mod convbert;
mod dense;
pub mod description;
pub mod head;
pub mod logistic;
pub mod loss;
pub mod metrics;
pub mod native;
pub mod parameters;
pub mod report;
pub mod settings;
pub mod train;
