//! Small heads on frozen embeddings, as the paper judges its model: what they are, how they learn, how well they do.
//!
//! [`head`] is what is trained ([`convbert`] its body), [`train`] how, [`loss`] towards what; [`logistic`] weighs attention maps; [`metrics`] are pure functions;
//! [`native`] says which residues of a known structure touch; [`blind`] are embeddings that know nothing but the residue.

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
