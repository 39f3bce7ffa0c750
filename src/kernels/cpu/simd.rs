//! Sixteen f32 lanes in three forms: one AVX-512 register, two AVX2 registers, or an array that the
//! compiler vectorises.
//!
//! Every kernel is written once over [`Lanes`] and compiled once per instruction set by
//! [`with_isa!`](super::isa). All forms do the same arithmetic lane by lane; only the portable form
//! rounds twice in a multiply-add, where the other forms round once.
#![expect(
    unsafe_code,
    reason = "vector intrinsics; each implementor says what its callers promise"
)]

use super::layout::LANES;

/// Prefetches the cache line at `place`, which need not be readable, into the second-level cache.
#[inline(always)]
pub(super) fn prefetch<T>(place: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: part of every x86-64; a prefetch never faults.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T1>(place.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = place;
}

/// Sixteen f32 lanes.
///
/// # Safety
/// Methods may only run where the implementor's instruction set is available; pointers must be
/// valid for 16 values (no alignment asked).
#[expect(
    clippy::missing_safety_doc,
    reason = "the section above holds for every method"
)]
pub unsafe trait Lanes: Copy {
    /// Rows of a tile of a matrix product, [`Lanes::TILE_WIDTH`] vectors wide: as many as the
    /// registers hold beside a row of B and a value of A.
    const TILE_ROWS: usize;
    /// Rows of a tile with B in bf16, where the registers hold both values of a pair.
    const TILE_ROWS_BF16: usize = Self::TILE_ROWS;
    /// Vectors across a tile: two, or one where there are few registers.
    const TILE_WIDTH: usize;
    /// All lanes equal.
    unsafe fn splat(value: f32) -> Self;
    /// Reads 16 values.
    unsafe fn load(source: *const f32) -> Self;
    /// Writes 16 values.
    unsafe fn store(self, target: *mut f32);
    /// Reads 16 values of bf16.
    unsafe fn load_bf16(source: *const u16) -> Self;
    /// Reads 16 pairs of bf16: the even and the odd elements.
    unsafe fn load_bf16_pairs(source: *const u16) -> (Self, Self);
    /// `self + other`.
    unsafe fn add(self, other: Self) -> Self;
    /// `self - other`.
    unsafe fn sub(self, other: Self) -> Self;
    /// `self * other`.
    unsafe fn mul(self, other: Self) -> Self;
    /// `self / other`.
    unsafe fn div(self, other: Self) -> Self;
    /// `self * factor + term`.
    unsafe fn mul_add(self, factor: Self, term: Self) -> Self;
    /// Lane-wise maximum.
    unsafe fn max(self, other: Self) -> Self;
    /// Lane-wise minimum.
    unsafe fn min(self, other: Self) -> Self;
    /// To the nearest integer, ties to even.
    unsafe fn round(self) -> Self;
    /// `self * 2^exponent` for integral exponents whose power of two is a normal number.
    unsafe fn scale_by_power_of_two(self, exponent: Self) -> Self;
    /// Lanes as an array.
    #[inline(always)]
    unsafe fn to_array(self) -> [f32; LANES] {
        let mut array = [0.0; LANES];
        // SAFETY: the array holds 16 values.
        unsafe { self.store(array.as_mut_ptr()) };
        array
    }
    /// Sum over lanes, in one fixed order.
    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        // SAFETY: passed on from the caller.
        let sixteen = unsafe { self.to_array() };
        // One array per width, because a loop over the widths would not be unrolled.
        let eight: [f32; 8] = std::array::from_fn(|i| sixteen[i] + sixteen[i + 8]);
        let four: [f32; 4] = std::array::from_fn(|i| eight[i] + eight[i + 4]);
        (four[0] + four[2]) + (four[1] + four[3])
    }
    /// Maximum over lanes.
    #[inline(always)]
    unsafe fn maximum(self) -> f32 {
        // SAFETY: passed on from the caller.
        let sixteen = unsafe { self.to_array() };
        let eight: [f32; 8] = std::array::from_fn(|i| sixteen[i].max(sixteen[i + 8]));
        let four: [f32; 4] = std::array::from_fn(|i| eight[i].max(eight[i + 4]));
        (four[0].max(four[2])).max(four[1].max(four[3]))
    }
}

/// Lanes that hold pairs of bf16 in the bits of f32, and the instruction that multiplies pairs.
///
/// # Safety
/// As for [`Lanes`].
#[expect(
    clippy::missing_safety_doc,
    reason = "the section above holds for every method"
)]
pub unsafe trait Bf16Pairs: Lanes {
    /// Pairs `(even[i], odd[i])`, rounded to nearest even.
    unsafe fn pairs(even: Self, odd: Self) -> Self;
    /// `self + even · even + odd · odd`, with the pair `left` in all lanes.
    unsafe fn add_dot(self, left: f32, right: Self) -> Self;
}

/// A number type in memory whose values the kernels compute with in f32.
///
/// # Safety
/// [`StoredFloat::load`] reads sixteen values of `Self` and nothing else.
pub unsafe trait StoredFloat: Copy + Send + Sync {
    /// The value in f32.
    fn value(self) -> f32;
    /// Reads sixteen values.
    ///
    /// # Safety
    /// As for [`Lanes`].
    unsafe fn load<V: Lanes>(source: *const Self) -> V;
}

// SAFETY: sixteen f32.
unsafe impl StoredFloat for f32 {
    #[inline(always)]
    fn value(self) -> f32 {
        self
    }
    #[inline(always)]
    unsafe fn load<V: Lanes>(source: *const f32) -> V {
        // SAFETY: passed on from the caller.
        unsafe { V::load(source) }
    }
}

// SAFETY: sixteen bf16, which are transparent u16.
unsafe impl StoredFloat for half::bf16 {
    #[inline(always)]
    fn value(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }
    #[inline(always)]
    unsafe fn load<V: Lanes>(source: *const half::bf16) -> V {
        // SAFETY: passed on from the caller.
        unsafe { V::load_bf16(source.cast()) }
    }
}

/// Sixteen lanes in an array, with the shape of their tiles.
#[derive(Clone, Copy)]
pub struct Array<const ROWS: usize, const WIDTH: usize>([f32; LANES]);

/// The portable form. Sixteen lanes take four registers of the target's baseline, which has 16 on
/// x86-64 and 32 on aarch64.
pub type Portable = Array<{ if cfg!(target_arch = "x86_64") { 2 } else { 4 } }, 1>;

#[inline(always)]
fn zip<const ROWS: usize, const WIDTH: usize>(
    a: Array<ROWS, WIDTH>,
    b: Array<ROWS, WIDTH>,
    f: impl Fn(f32, f32) -> f32,
) -> Array<ROWS, WIDTH> {
    Array(std::array::from_fn(|i| f(a.0[i], b.0[i])))
}

// SAFETY: no instruction beyond the target's baseline; pointers are the caller's promise.
unsafe impl<const ROWS: usize, const WIDTH: usize> Lanes for Array<ROWS, WIDTH> {
    const TILE_ROWS: usize = ROWS;
    const TILE_WIDTH: usize = WIDTH;
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Array([value; LANES])
    }
    #[inline(always)]
    unsafe fn load(source: *const f32) -> Self {
        // SAFETY: the caller promises 16 readable values.
        Array(unsafe { source.cast::<[f32; LANES]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn store(self, target: *mut f32) {
        // SAFETY: the caller promises 16 writable values.
        unsafe { target.cast::<[f32; LANES]>().write_unaligned(self.0) };
    }
    #[inline(always)]
    unsafe fn load_bf16(source: *const u16) -> Self {
        // SAFETY: the caller promises 16 readable values.
        let values = unsafe { source.cast::<[u16; LANES]>().read_unaligned() };
        Array(values.map(|value| f32::from_bits(u32::from(value) << 16)))
    }
    #[inline(always)]
    unsafe fn load_bf16_pairs(source: *const u16) -> (Self, Self) {
        // SAFETY: the caller promises 16 readable pairs.
        let pairs = unsafe { source.cast::<[[u16; 2]; LANES]>().read_unaligned() };
        let element = |which: usize| {
            Array(std::array::from_fn(|i| {
                f32::from_bits(u32::from(pairs[i][which]) << 16)
            }))
        };
        (element(0), element(1))
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        zip(self, other, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        zip(self, other, |a, b| a - b)
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        zip(self, other, |a, b| a * b)
    }
    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        zip(self, other, |a, b| a / b)
    }
    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, term: Self) -> Self {
        Array(std::array::from_fn(|i| self.0[i] * factor.0[i] + term.0[i]))
    }
    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        zip(self, other, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        zip(self, other, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    unsafe fn round(self) -> Self {
        Array(self.0.map(f32::round_ties_even))
    }
    #[inline(always)]
    unsafe fn scale_by_power_of_two(self, exponent: Self) -> Self {
        zip(self, exponent, |a, e| {
            a * f32::from_bits(((e as i32 + 127) as u32) << 23)
        })
    }
}

#[cfg(target_arch = "x86_64")]
pub mod x86;

/// `e^x` to about 1 ulp for x in [-87, 88]; 2^-126 or less below, and e^88 above. Cody-Waite
/// reduction and the minimax polynomial of Cephes `expf` (S. Moshier, netlib.org/cephes).
///
/// # Safety
/// As for [`Lanes`].
#[inline(always)]
pub unsafe fn exp<V: Lanes>(x: V) -> V {
    // SAFETY: passed on from the caller.
    unsafe {
        // Operands in this order keep a NaN a NaN.
        let x = V::splat(88.0).min(V::splat(-87.0).max(x));
        let n = x.mul(V::splat(std::f32::consts::LOG2_E)).round();
        let r = n.mul_add(V::splat(-0.693_359_4), x);
        let r = n.mul_add(V::splat(2.121_944_4e-4), r);
        let p = V::splat(1.987_569_1e-4);
        let p = p.mul_add(r, V::splat(1.398_199_9e-3));
        let p = p.mul_add(r, V::splat(8.333_452e-3));
        let p = p.mul_add(r, V::splat(4.166_579_6e-2));
        let p = p.mul_add(r, V::splat(1.666_666_5e-1));
        let p = p.mul_add(r, V::splat(5e-1));
        let p = p.mul_add(r.mul(r), r.add(V::splat(1.0)));
        p.scale_by_power_of_two(n)
    }
}
