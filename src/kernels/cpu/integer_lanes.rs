//! Sixteen i32 sums and the instruction that feeds them: four signed bytes of A by four unsigned bytes of a weight, or two signed 16-bit integers by two, added up
//! exactly.
//!
//! Integer sums have no rounding: every form below, every order and every tile gives the same bits. AVX-512-VNNI does all of a group in one instruction; for bytes, the
//! others split them into even and odd 16-bit halves and use the multiply-add of those (`pmaddubsw`, which takes bytes, saturates).
#![expect(
    unsafe_code,
    reason = "vector intrinsics; each implementor says what its callers promise"
)]

use std::marker::PhantomData;

use super::Isa;
use super::simd::LANES;

/// How integers are multiplied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IntegerIsa {
    /// Whatever the target's baseline is.
    Portable,
    /// AVX2.
    Avx2,
    /// AVX-512BW.
    Avx512,
    /// AVX-512-VNNI.
    Vnni,
    /// Matrix tiles (AMX).
    Amx,
}

impl IntegerIsa {
    /// Every form, slowest first.
    pub const ALL: [IntegerIsa; 5] = [
        IntegerIsa::Portable,
        IntegerIsa::Avx2,
        IntegerIsa::Avx512,
        IntegerIsa::Vnni,
        IntegerIsa::Amx,
    ];

    /// The best form among those that `isa` and this machine allow.
    pub fn of(isa: Isa) -> Self {
        if isa < Isa::Avx2 {
            IntegerIsa::Portable
        } else if isa < Isa::Avx512 {
            IntegerIsa::Avx2
        } else if isa == Isa::Amx && IntegerIsa::Amx.is_available() {
            IntegerIsa::Amx
        } else if IntegerIsa::Vnni.is_available() {
            IntegerIsa::Vnni
        } else {
            IntegerIsa::Avx512
        }
    }

    /// Whether this machine can run it.
    pub fn is_available(self) -> bool {
        match self {
            IntegerIsa::Portable => true,
            IntegerIsa::Avx2 => Isa::Avx2.is_available(),
            IntegerIsa::Avx512 => Isa::Avx512.is_available(),
            #[cfg(target_arch = "x86_64")]
            IntegerIsa::Vnni => {
                Isa::Avx512.is_available() && is_x86_feature_detected!("avx512vnni")
            }
            IntegerIsa::Amx => Isa::Amx.is_available() && IntegerIsa::Vnni.is_available(),
            #[cfg(not(target_arch = "x86_64"))]
            IntegerIsa::Vnni => false,
        }
    }
}

/// Sixteen columns' sums.
///
/// # Safety
/// Methods may only run where the implementor's instruction set is available; pointers must be valid for 64 bytes, those of [`Sums::left`] for four.
pub(super) unsafe trait Sums: Copy {
    /// Four bytes, a group, of each of sixteen columns.
    type Weights: Copy;
    /// Four bytes of a row of A, for all columns.
    type Left: Copy;
    /// Rows of a tile of 32 columns (16 where [`Sums::WIDTH`] is 1) that fit the registers.
    const TILE_ROWS: usize;
    /// Vectors of sixteen columns side by side in a tile.
    const WIDTH: usize;
    /// Nothing added yet.
    unsafe fn zero() -> Self;
    /// Reads sixteen sums.
    unsafe fn load(source: *const i32) -> Self;
    /// Reads weights: 16 × 4 bytes.
    unsafe fn weights(source: *const u8) -> Self::Weights;
    /// Reads four bytes of A.
    unsafe fn left(source: *const i32) -> Self::Left;
    /// Adds a group's products a column.
    unsafe fn add_dot(self, left: Self::Left, weights: Self::Weights) -> Self;
    /// The sums.
    unsafe fn to_array(self) -> [i32; LANES];
    /// Writes sixteen results `(sum - offset) · (scale · scales) + residual` to `target`, each operation rounded by itself.
    ///
    /// # Safety
    /// As above; `scales`, `residual` and `target` are valid for sixteen floats.
    #[inline(always)]
    unsafe fn write(
        self,
        (offset, scale): (i32, f32),
        scales: *const f32,
        residual: Option<*const f32>,
        target: *mut f32,
    ) {
        // SAFETY: passed on from the caller.
        unsafe {
            for (lane, sum) in self.to_array().into_iter().enumerate() {
                let mut value = (sum - offset) as f32 * (scale * *scales.add(lane));
                if let Some(residual) = residual {
                    value += *residual.add(lane);
                }
                *target.add(lane) = value;
            }
        }
    }
}

/// Sixteen sums in an array, of groups of `N` integers.
#[derive(Clone, Copy)]
pub(super) struct Portable<A, W, const N: usize>([i32; LANES], PhantomData<(A, W)>);

/// Bytes.
pub(super) type Portable8 = Portable<i8, u8, 4>;
/// 16-bit integers.
pub(super) type Portable16 = Portable<i16, i16, 2>;

// SAFETY: no instruction beyond the target's baseline; pointers are the caller's promise; groups are four bytes.
unsafe impl<A, W, const N: usize> Sums for Portable<A, W, N>
where
    A: Copy + Into<i32>,
    W: Copy + Into<i32>,
{
    type Weights = [[W; N]; LANES];
    type Left = [A; N];
    const TILE_ROWS: usize = 4;
    const WIDTH: usize = 1;
    #[inline(always)]
    unsafe fn zero() -> Self {
        Self([0; LANES], PhantomData)
    }
    #[inline(always)]
    unsafe fn load(source: *const i32) -> Self {
        // SAFETY: the caller promises 64 readable bytes.
        let sums = unsafe { source.cast::<[i32; LANES]>().read_unaligned() };
        Self(sums, PhantomData)
    }
    #[inline(always)]
    unsafe fn weights(source: *const u8) -> Self::Weights {
        // SAFETY: the caller promises 64 readable bytes.
        unsafe { source.cast::<[[W; N]; LANES]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn left(source: *const i32) -> Self::Left {
        // SAFETY: the caller promises four readable bytes.
        unsafe { source.cast::<[A; N]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn add_dot(self, left: Self::Left, weights: Self::Weights) -> Self {
        let mut sums = self.0;
        for (sum, weights) in sums.iter_mut().zip(weights) {
            for (a, w) in left.into_iter().zip(weights) {
                // Only sums of a row that is not finite overflow: its scale is NaN.
                *sum = sum.wrapping_add(a.into() * w.into());
            }
        }
        Self(sums, PhantomData)
    }
    #[inline(always)]
    unsafe fn to_array(self) -> [i32; LANES] {
        self.0
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{LANES, Sums};
    use std::arch::x86_64::{
        __m256i, __m512i, _mm256_add_epi32, _mm256_add_ps, _mm256_and_si256, _mm256_cvtepi32_ps,
        _mm256_loadu_ps, _mm256_loadu_si256, _mm256_madd_epi16, _mm256_mul_ps, _mm256_set1_epi16,
        _mm256_set1_epi32, _mm256_set1_ps, _mm256_setzero_si256, _mm256_slli_epi16,
        _mm256_srai_epi16, _mm256_srli_epi16, _mm256_storeu_ps, _mm256_sub_epi32, _mm512_add_epi32,
        _mm512_add_ps, _mm512_and_si512, _mm512_cvtepi32_ps, _mm512_dpbusd_epi32,
        _mm512_dpwssd_epi32, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_madd_epi16, _mm512_mul_ps,
        _mm512_set1_epi16, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_si512,
        _mm512_slli_epi16, _mm512_srai_epi16, _mm512_srli_epi16, _mm512_storeu_ps,
        _mm512_sub_epi32,
    };

    /// One register; AVX-512-VNNI, integers of so many bits.
    #[derive(Clone, Copy)]
    pub(crate) struct Vnni<const BITS: usize>(__m512i);

    // SAFETY: intrinsics of AVX-512F and -VNNI, whose presence the trait's callers promise.
    #[rustfmt::skip]
    unsafe impl<const BITS: usize> Sums for Vnni<BITS> {
        type Weights = __m512i;
        type Left = __m512i;
        const TILE_ROWS: usize = 12;
        const WIDTH: usize = 2;
        #[inline(always)]
        unsafe fn zero() -> Self { unsafe { Self(_mm512_setzero_si512()) } }
        #[inline(always)]
        unsafe fn load(source: *const i32) -> Self { unsafe { Self(_mm512_loadu_si512(source.cast())) } }
        #[inline(always)]
        unsafe fn weights(source: *const u8) -> __m512i { unsafe { _mm512_loadu_si512(source.cast()) } }
        #[inline(always)]
        unsafe fn left(source: *const i32) -> __m512i { unsafe { _mm512_set1_epi32(source.read_unaligned()) } }
        #[inline(always)]
        unsafe fn add_dot(self, left: __m512i, weights: __m512i) -> Self {
            unsafe {
                match BITS {
                    8 => Self(_mm512_dpbusd_epi32(self.0, weights, left)),
                    16 => Self(_mm512_dpwssd_epi32(self.0, weights, left)),
                    _ => unreachable!("8 bits or 16"),
                }
            }
        }
        #[inline(always)]
        unsafe fn to_array(self) -> [i32; LANES] { unsafe { std::mem::transmute(self.0) } }
        #[inline(always)]
        unsafe fn write(self, row: (i32, f32), scales: *const f32, residual: Option<*const f32>, target: *mut f32) {
            unsafe { write_512(self.0, row, scales, residual, target) }
        }
    }

    /// One register; AVX-512BW.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx512(__m512i);

    // SAFETY: intrinsics of AVX-512F and -BW, whose presence the trait's callers promise.
    #[rustfmt::skip]
    unsafe impl Sums for Avx512 {
        /// Even bytes and odd bytes as 16-bit integers.
        type Weights = [__m512i; 2];
        type Left = [__m512i; 2];
        const TILE_ROWS: usize = 6;
        const WIDTH: usize = 2;
        #[inline(always)]
        unsafe fn zero() -> Self { unsafe { Self(_mm512_setzero_si512()) } }
        #[inline(always)]
        unsafe fn load(source: *const i32) -> Self { unsafe { Self(_mm512_loadu_si512(source.cast())) } }
        #[inline(always)]
        unsafe fn weights(source: *const u8) -> [__m512i; 2] {
            unsafe {
                let bytes = _mm512_loadu_si512(source.cast());
                [_mm512_and_si512(bytes, _mm512_set1_epi16(0xff)), _mm512_srli_epi16::<8>(bytes)]
            }
        }
        #[inline(always)]
        unsafe fn left(source: *const i32) -> [__m512i; 2] {
            unsafe {
                let bytes = _mm512_set1_epi32(source.read_unaligned());
                [_mm512_srai_epi16::<8>(_mm512_slli_epi16::<8>(bytes)), _mm512_srai_epi16::<8>(bytes)]
            }
        }
        #[inline(always)]
        unsafe fn add_dot(self, left: [__m512i; 2], weights: [__m512i; 2]) -> Self {
            unsafe {
                let even = _mm512_madd_epi16(left[0], weights[0]);
                let odd = _mm512_madd_epi16(left[1], weights[1]);
                Self(_mm512_add_epi32(self.0, _mm512_add_epi32(even, odd)))
            }
        }
        #[inline(always)]
        unsafe fn to_array(self) -> [i32; LANES] { unsafe { std::mem::transmute(self.0) } }
        #[inline(always)]
        unsafe fn write(self, row: (i32, f32), scales: *const f32, residual: Option<*const f32>, target: *mut f32) {
            unsafe { write_512(self.0, row, scales, residual, target) }
        }
    }

    /// [`Sums::write`] of one register.
    #[inline(always)]
    unsafe fn write_512(
        sums: __m512i,
        (offset, scale): (i32, f32),
        scales: *const f32,
        residual: Option<*const f32>,
        target: *mut f32,
    ) {
        // SAFETY: passed on from `Sums::write`.
        unsafe {
            let sums = _mm512_cvtepi32_ps(_mm512_sub_epi32(sums, _mm512_set1_epi32(offset)));
            let scales = _mm512_mul_ps(_mm512_set1_ps(scale), _mm512_loadu_ps(scales));
            let mut values = _mm512_mul_ps(sums, scales);
            if let Some(residual) = residual {
                values = _mm512_add_ps(values, _mm512_loadu_ps(residual));
            }
            _mm512_storeu_ps(target, values);
        }
    }

    /// Two registers; AVX2.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx2([__m256i; 2]);

    // SAFETY: intrinsics of AVX2, whose presence the trait's callers promise.
    #[rustfmt::skip]
    unsafe impl Sums for Avx2 {
        /// Even bytes and odd bytes as 16-bit integers, of columns 0 to 7 and of the rest.
        type Weights = [[__m256i; 2]; 2];
        type Left = [__m256i; 2];
        const TILE_ROWS: usize = 3;
        const WIDTH: usize = 1;
        #[inline(always)]
        unsafe fn zero() -> Self { unsafe { Self([_mm256_setzero_si256(); 2]) } }
        #[inline(always)]
        unsafe fn load(source: *const i32) -> Self { unsafe { Self([_mm256_loadu_si256(source.cast()), _mm256_loadu_si256(source.add(8).cast())]) } }
        #[inline(always)]
        unsafe fn weights(source: *const u8) -> [[__m256i; 2]; 2] {
            unsafe {
                let split = |bytes| [_mm256_and_si256(bytes, _mm256_set1_epi16(0xff)), _mm256_srli_epi16::<8>(bytes)];
                [split(_mm256_loadu_si256(source.cast())), split(_mm256_loadu_si256(source.add(32).cast()))]
            }
        }
        #[inline(always)]
        unsafe fn left(source: *const i32) -> [__m256i; 2] {
            unsafe {
                let bytes = _mm256_set1_epi32(source.read_unaligned());
                [_mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(bytes)), _mm256_srai_epi16::<8>(bytes)]
            }
        }
        #[inline(always)]
        unsafe fn add_dot(self, left: [__m256i; 2], weights: [[__m256i; 2]; 2]) -> Self {
            unsafe {
                let mut sums = self.0;
                for (sum, weights) in sums.iter_mut().zip(weights) {
                    let even = _mm256_madd_epi16(left[0], weights[0]);
                    let odd = _mm256_madd_epi16(left[1], weights[1]);
                    *sum = _mm256_add_epi32(*sum, _mm256_add_epi32(even, odd));
                }
                Self(sums)
            }
        }
        #[inline(always)]
        unsafe fn to_array(self) -> [i32; LANES] { unsafe { std::mem::transmute(self.0) } }
        #[inline(always)]
        unsafe fn write(self, (offset, scale): (i32, f32), scales: *const f32, residual: Option<*const f32>, target: *mut f32) {
            for (half, sums) in self.0.into_iter().enumerate() {
                unsafe {
                    let sums = _mm256_cvtepi32_ps(_mm256_sub_epi32(sums, _mm256_set1_epi32(offset)));
                    let scales = _mm256_mul_ps(_mm256_set1_ps(scale), _mm256_loadu_ps(scales.add(8 * half)));
                    let mut values = _mm256_mul_ps(sums, scales);
                    if let Some(residual) = residual {
                        values = _mm256_add_ps(values, _mm256_loadu_ps(residual.add(8 * half)));
                    }
                    _mm256_storeu_ps(target.add(8 * half), values);
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) use x86::{Avx2, Avx512, Vnni};
