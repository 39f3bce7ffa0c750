//! The CPU forms of the kernels: written once over sixteen lanes, compiled per instruction set, chosen at run time.

#![expect(
    clippy::inline_always,
    reason = "a kernel uses an instruction set only if it is inlined into the function that enables it"
)]

#[cfg(target_arch = "x86_64")]
mod amx;
pub mod attention;
pub mod attention_backward;
#[cfg(target_arch = "x86_64")]
mod dot_bf16;
pub mod elementwise;
pub mod elementwise_backward;
pub mod gemm;
mod huge_pages;
mod integer_lanes;
pub mod integer_product;
pub mod integer_weight;
mod many_queries;
mod mix;
pub mod output;
pub mod packed_weight;
pub mod simd;
mod single_query;
#[cfg(test)]
mod tests;
mod tile;

pub use integer_lanes::IntegerIsa;
pub use simd::Isa;

/// `with_isa!(isa, kernel(name: Type, …)(argument, …))` runs `kernel::<V>(argument, …)`, a generic over [`simd::Lanes`], compiled for the instruction set
/// `isa`.
///
/// A kernel of one more type says so: `kernel<T: Bound>(…)`. It must be `#[inline(always)]`, so that it is compiled inside the function that enables the instructions.
macro_rules! with_isa {
    ($isa:expr, $kernel:ident $(<$of:ident: $bound:path>)? ($($name:ident: $kind:ty),* $(,)?)($($argument:expr),* $(,)?)) => {{
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma")]
        unsafe fn avx512$(<$of: $bound>)?($($name: $kind),*) {
            // SAFETY: the features are enabled here; the rest is the caller's promise.
            unsafe { $kernel::<$crate::kernels::cpu::simd::Avx512 $(, $of)?>($($name),*) }
        }
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma")]
        unsafe fn avx2$(<$of: $bound>)?($($name: $kind),*) {
            // SAFETY: as above.
            unsafe { $kernel::<$crate::kernels::cpu::simd::Avx2 $(, $of)?>($($name),*) }
        }
        match $isa {
            #[cfg(target_arch = "x86_64")]
            $crate::kernels::cpu::Isa::Avx512 | $crate::kernels::cpu::Isa::Avx512Bf16 | $crate::kernels::cpu::Isa::Amx => avx512($($argument),*),
            #[cfg(target_arch = "x86_64")]
            $crate::kernels::cpu::Isa::Avx2 => avx2($($argument),*),
            _ => $kernel::<$crate::kernels::cpu::simd::Portable $(, $of)?>($($argument),*),
        }
    }};
}
pub(crate) use with_isa;

/// A pointer that several threads write through, each to places of its own.
#[derive(Clone, Copy)]
pub(crate) struct SharedMut(pub *mut f32);
#[expect(unsafe_code, reason = "tasks write disjoint ranges; see each use")]
// SAFETY: the kernels hand every task a disjoint part of the target.
unsafe impl Send for SharedMut {}
#[expect(unsafe_code, reason = "as above")]
// SAFETY: as above.
unsafe impl Sync for SharedMut {}
impl SharedMut {
    /// The pointer (a method, so that closures capture the whole struct).
    pub(crate) fn get(self) -> *mut f32 {
        self.0
    }
}
