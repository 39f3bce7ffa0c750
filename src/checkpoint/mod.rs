//! A model is a directory: finding, loading, downloading, making and saving models. Only this room
//! knows memory maps, the hub and pickle.
//!
//! - [`Hub`]: the settings of the standard Hugging Face cache, the endpoint, the token and the use
//!   of the network.
//! - [`ModelRef`]: a value of `--model`. [`ModelRef::resolve`] finds its [`ModelLocation`], a local
//!   directory or the bundled model, without using the network.
//! - [`Checkpoint`]: an opened model with its shape, its tokenizer, and its tensors as mapped
//!   bytes.
//! - [`save`](mod@save) writes a checkpoint, [`init`] makes a random one, [`fetch`](mod@fetch)
//!   downloads one, [`convert`] converts pickle to safetensors, [`training`] saves and loads the
//!   checkpoints of a training run.
//!
//! ```
//! use ankh3::checkpoint::{Checkpoint, Hub};
//!
//! let nano = Checkpoint::open("nano", &Hub::from_env())?;
//! assert_eq!((nano.config.num_layers, nano.config.d_model), (4, 192));
//! # Ok::<(), ankh3::checkpoint::CheckpointError>(())
//! ```

mod checksum;
pub mod convert;
mod error;
pub mod fetch;
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
mod state_dict;
pub mod training;
mod weight_entry;
mod weights;

pub use error::CheckpointError;
pub use hub::Hub;
pub use load::Checkpoint;
pub use place::{BUNDLED, ModelLocation};
pub use resolve::{KNOWN_MODELS, KnownModel, ModelRef};
