//! The CPU forms of the kernels: written once over sixteen lanes, compiled per instruction set,
//! chosen at run time.
//!
//! From the bottom up: [`layout`] (how operands lie), [`simd`] and `integer_lanes` (vectors),
//! [`isa`] (which of them this machine has), `tile` (a tile of results in registers),
//! [`packed_weight`] and [`integer_weight`] (weights), [`product`] (which arithmetic multiplies
//! them), [`gemm`] and [`integer_product`] (products), [`attend`] and [`attention_backward`].

#![expect(
    clippy::inline_always,
    reason = "a kernel uses an instruction set only if it is inlined into the function that enables it"
)]

#[cfg(target_arch = "x86_64")]
mod amx;
pub mod attend;
pub mod attention;
pub mod attention_backward;
#[cfg(target_arch = "x86_64")]
mod dot_bf16;
mod dot_f32;
pub mod elementwise;
pub mod elementwise_backward;
pub mod gemm;
mod huge_pages;
mod integer_lanes;
pub mod integer_product;
mod integer_quantizer;
pub mod integer_weight;
pub mod isa;
pub mod layout;
mod many_queries;
mod mix;
mod output;
pub mod packed_weight;
pub mod product;
mod shared;
pub mod simd;
mod single_query;
#[cfg(test)]
mod tests;
mod tile;
mod transpose;
pub mod weight;

pub use isa::{IntegerIsa, Isa};
