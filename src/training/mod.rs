//! Pretraining: joint training on masked language modelling and sequence completion, after the
//! paper (arXiv 2505.20052).
//!
//! | file | does |
//! |---|---|
//! | [`recipe`], [`presets`] | the settings of a run, and those that come with the tool |
//! | [`order`] | shuffles sequences |
//! | [`objective`] | makes training examples from sequences |
//! | [`batch`] | packs examples |
//! | [`step`] | the loss of a batch and its gradients: on a CPU by `backprop`, elsewhere by candle's tape |
//! | [`recompute`] | the tape in less memory |
//! | [`optimizer`], [`schedule`] | move the weights |
//! | [`trainer`] | the state of a run |
//! | [`evaluation`] | the quality of the weights on held-out sequences |
//!
//! Reading sequences and saving checkpoints is the caller's task.
//!
//! ```
//! use ankh3::training::schedule::{Schedule, ScheduleKind};
//!
//! let schedule = Schedule { kind: ScheduleKind::InverseSquareRoot, warmup_steps: 10, ..Schedule::default() };
//! // The fraction of the peak learning rate at steps 4, 9 and 39 of 100, counted from 0.
//! assert_eq!([4, 9, 39].map(|step| schedule.factor(step, 100)), [0.5, 1.0, 0.5]);
//! ```

mod backprop;
pub mod batch;
pub mod evaluation;
pub mod mixture;
pub mod network;
pub mod objective;
pub mod optimizer;
pub mod order;
pub mod presets;
pub mod recipe;
pub mod recompute;
pub mod schedule;
pub mod step;
pub mod trainer;
pub mod variables;
