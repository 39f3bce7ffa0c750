//! Contact maps: lists of contacts as files bring them, a picture of a dense matrix, and the map of
//! the HTML page.
//!
//! Probabilities are coloured from 0 to 1 everywhere, so that the same colour means the same
//! probability on every picture and page. Scores have no scale of their own and are coloured up to
//! the highest of the protein.

mod inline;
mod list;
mod picture;
mod rr;

pub(super) use inline::{COLOURS, DRAWN, colour_key, svg};
pub use list::{Contact, ContactList, Measure};
pub use picture::ContactPlot;
pub(super) use rr::read_rr;
