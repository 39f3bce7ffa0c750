//! The result files of a run as one HTML page that needs nothing else: tables, charts, contact
//! maps, and how each file was made.
//!
//! [`read::result_file`] recognises a file by its content, [`render()`] writes the page;
//! `sections/` has one file per kind of result. The same files give the same bytes: no clock, no
//! host name. Charts are SVG inside the page, and there is no script, so that the page opens
//! anywhere and can be archived.

mod frame;
mod html;
pub mod read;
pub mod results;
mod sections;
pub mod sequences;
pub mod table;

pub use frame::render;
pub use results::Limits;
