//! A model is a directory: find, load, fetch, make and save it. The only room that knows memory maps, the hub and pickle.
//!
//! - [`Hub`] says where things are: the standard Hugging Face cache, the endpoint, the token, whether the network may be used.
//! - [`ModelRef`] is what `--model` was given; [`ModelRef::resolve`] turns it into a [`Place`], a local directory or the model inside this program,
//!   never touching the network.
//! - [`Checkpoint`] is a directory opened: shape, tokenizer, and tensors as mapped bytes.
//! - [`save`](mod@save) writes one, [`init`] makes a random one, [`fetch`](mod@fetch) downloads one, [`convert`] turns pickle into safetensors.

pub mod convert;
mod error;
pub mod fetch;
mod fetch_error;
mod hash;
pub mod hub;
pub mod init;
pub mod inspect;
pub mod layout;
pub mod load;
mod pickle;
mod place;
pub mod resolve;
pub mod save;
pub mod training;
mod transfer;
mod weights;

pub use error::CheckpointError;
pub use hub::Hub;
pub use load::Checkpoint;
pub use place::{BUNDLED, Place};
pub use resolve::{KNOWN_MODELS, KnownModel, ModelRef};
