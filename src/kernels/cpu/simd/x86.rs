//! The lanes of AVX-512 and AVX2.

use super::{Bf16Pairs, LANES, Lanes};
use std::arch::x86_64::{
    __m256, __m512, __m512bh, __m512i, _MM_FROUND_NO_EXC, _MM_FROUND_TO_NEAREST_INT,
    _mm_loadu_si128, _mm256_add_epi32, _mm256_add_ps, _mm256_and_si256, _mm256_castsi256_ps,
    _mm256_cvtepu16_epi32, _mm256_cvtps_epi32, _mm256_div_ps, _mm256_fmadd_ps, _mm256_loadu_ps,
    _mm256_loadu_si256, _mm256_max_ps, _mm256_min_ps, _mm256_mul_ps, _mm256_round_ps,
    _mm256_set1_epi32, _mm256_set1_ps, _mm256_slli_epi32, _mm256_storeu_ps, _mm256_sub_ps,
    _mm512_add_ps, _mm512_and_si512, _mm512_castsi512_ps, _mm512_cvtepu16_epi32,
    _mm512_cvtne2ps_pbh, _mm512_div_ps, _mm512_dpbf16_ps, _mm512_fmadd_ps, _mm512_loadu_ps,
    _mm512_loadu_si512, _mm512_maskz_loadu_ps, _mm512_max_ps, _mm512_min_ps, _mm512_mul_ps,
    _mm512_permutexvar_epi16, _mm512_roundscale_ps, _mm512_scalef_ps, _mm512_set1_epi32,
    _mm512_set1_ps, _mm512_slli_epi32, _mm512_storeu_ps, _mm512_sub_ps,
};

const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;

/// One AVX-512 register.
#[derive(Clone, Copy)]
pub struct Avx512(__m512);

// SAFETY: intrinsics of AVX-512F, whose presence the trait's callers promise.
#[rustfmt::skip]
unsafe impl Lanes for Avx512 {
    const TILE_ROWS: usize = 12;
    const TILE_WIDTH: usize = 2;
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self { unsafe { Self(_mm512_set1_ps(value)) } }
    #[inline(always)]
    unsafe fn load(source: *const f32) -> Self { unsafe { Self(_mm512_loadu_ps(source)) } }
    #[inline(always)]
    unsafe fn store(self, target: *mut f32) { unsafe { _mm512_storeu_ps(target, self.0) } }
    #[inline(always)]
    unsafe fn load_bf16(source: *const u16) -> Self {
        unsafe { Self(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(_mm256_loadu_si256(source.cast()))))) }
    }
    #[inline(always)]
    unsafe fn load_bf16_pairs(source: *const u16) -> (Self, Self) {
        unsafe {
            let pairs = _mm512_loadu_si512(source.cast());
            let odd = _mm512_and_si512(pairs, _mm512_set1_epi32(0xffff_0000_u32 as i32));
            (Self(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(pairs))), Self(_mm512_castsi512_ps(odd)))
        }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self { unsafe { Self(_mm512_add_ps(self.0, other.0)) } }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self { unsafe { Self(_mm512_sub_ps(self.0, other.0)) } }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self { unsafe { Self(_mm512_mul_ps(self.0, other.0)) } }
    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self { unsafe { Self(_mm512_div_ps(self.0, other.0)) } }
    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, term: Self) -> Self { unsafe { Self(_mm512_fmadd_ps(self.0, factor.0, term.0)) } }
    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self { unsafe { Self(_mm512_max_ps(self.0, other.0)) } }
    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self { unsafe { Self(_mm512_min_ps(self.0, other.0)) } }
    #[inline(always)]
    unsafe fn round(self) -> Self { unsafe { Self(_mm512_roundscale_ps::<NEAREST>(self.0)) } }
    #[inline(always)]
    unsafe fn scale_by_power_of_two(self, exponent: Self) -> Self { unsafe { Self(_mm512_scalef_ps(self.0, exponent.0)) } }
}

/// Pairs `(even[i], odd[i])` of bf16, rounded to nearest even.
///
/// # Safety
/// The CPU has AVX-512F/BW and AVX512-BF16.
#[inline(always)]
pub unsafe fn interleave_bf16(even: __m512, odd: __m512) -> __m512i {
    /// Alternately from the lower half, which holds the even values, and from the upper half.
    const ORDER: [u16; 32] = {
        let mut order = [0; 32];
        let mut i = 0;
        while i < 16 {
            order[2 * i] = i as u16;
            order[2 * i + 1] = 16 + i as u16;
            i += 1;
        }
        order
    };
    // SAFETY: passed on from the caller; both types, and the order, are 64 bytes.
    unsafe {
        let rounded: __m512i = std::mem::transmute(_mm512_cvtne2ps_pbh(odd, even));
        _mm512_permutexvar_epi16(_mm512_loadu_si512(ORDER.as_ptr().cast()), rounded)
    }
}

/// A mask of the first `count` (at most 16) of sixteen lanes.
#[inline(always)]
pub fn lane_mask(count: usize) -> u16 {
    ((1_u32 << count.min(LANES)) - 1) as u16
}

/// Up to sixteen pairs `(even[i], odd[i])` of bf16 in the bits of f32, rounded to nearest even;
/// zero beyond the end of a slice.
///
/// # Safety
/// The CPU must have AVX-512F/BW/VL and AVX512-BF16.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub unsafe fn bf16_pairs(even: &[f32], odd: &[f32]) -> [f32; LANES] {
    // SAFETY: masks end the reads where the slices end; both types are 64 bytes.
    unsafe {
        let even = _mm512_maskz_loadu_ps(lane_mask(even.len()), even.as_ptr());
        let odd = _mm512_maskz_loadu_ps(lane_mask(odd.len()), odd.as_ptr());
        std::mem::transmute(interleave_bf16(even, odd))
    }
}

// SAFETY: intrinsics of AVX-512F/BW and AVX512-BF16, whose presence the trait's callers promise;
// the types that are changed are 64 bytes.
#[rustfmt::skip]
unsafe impl Bf16Pairs for Avx512 {
    #[inline(always)]
    unsafe fn pairs(even: Self, odd: Self) -> Self { unsafe { Self(_mm512_castsi512_ps(interleave_bf16(even.0, odd.0))) } }
    #[inline(always)]
    unsafe fn add_dot(self, left: f32, right: Self) -> Self {
        unsafe {
            let pair = |bits| std::mem::transmute::<__m512, __m512bh>(bits);
            Self(_mm512_dpbf16_ps(self.0, pair(_mm512_set1_ps(left)), pair(right.0)))
        }
    }
}

/// Two AVX registers.
#[derive(Clone, Copy)]
pub struct Avx2(__m256, __m256);

// SAFETY: intrinsics of AVX2 and FMA, whose presence the trait's callers promise.
#[rustfmt::skip]
unsafe impl Lanes for Avx2 {
    const TILE_ROWS: usize = 6;
    const TILE_ROWS_BF16: usize = 4;
    const TILE_WIDTH: usize = 1;
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self { unsafe { let v = _mm256_set1_ps(value); Self(v, v) } }
    #[inline(always)]
    unsafe fn load(source: *const f32) -> Self { unsafe { Self(_mm256_loadu_ps(source), _mm256_loadu_ps(source.add(8))) } }
    #[inline(always)]
    unsafe fn store(self, target: *mut f32) { unsafe { _mm256_storeu_ps(target, self.0); _mm256_storeu_ps(target.add(8), self.1); } }
    #[inline(always)]
    unsafe fn load_bf16(source: *const u16) -> Self {
        unsafe {
            let widened = |source: *const u16| _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(_mm_loadu_si128(source.cast()))));
            Self(widened(source), widened(source.add(8)))
        }
    }
    #[inline(always)]
    unsafe fn load_bf16_pairs(source: *const u16) -> (Self, Self) {
        unsafe {
            let (a, b) = (_mm256_loadu_si256(source.cast()), _mm256_loadu_si256(source.add(16).cast()));
            let mask = _mm256_set1_epi32(0xffff_0000_u32 as i32);
            let even = Self(_mm256_castsi256_ps(_mm256_slli_epi32::<16>(a)), _mm256_castsi256_ps(_mm256_slli_epi32::<16>(b)));
            let odd = Self(_mm256_castsi256_ps(_mm256_and_si256(a, mask)), _mm256_castsi256_ps(_mm256_and_si256(b, mask)));
            (even, odd)
        }
    }
    #[inline(always)]
    unsafe fn add(self, o: Self) -> Self { unsafe { Self(_mm256_add_ps(self.0, o.0), _mm256_add_ps(self.1, o.1)) } }
    #[inline(always)]
    unsafe fn sub(self, o: Self) -> Self { unsafe { Self(_mm256_sub_ps(self.0, o.0), _mm256_sub_ps(self.1, o.1)) } }
    #[inline(always)]
    unsafe fn mul(self, o: Self) -> Self { unsafe { Self(_mm256_mul_ps(self.0, o.0), _mm256_mul_ps(self.1, o.1)) } }
    #[inline(always)]
    unsafe fn div(self, o: Self) -> Self { unsafe { Self(_mm256_div_ps(self.0, o.0), _mm256_div_ps(self.1, o.1)) } }
    #[inline(always)]
    unsafe fn mul_add(self, f: Self, t: Self) -> Self { unsafe { Self(_mm256_fmadd_ps(self.0, f.0, t.0), _mm256_fmadd_ps(self.1, f.1, t.1)) } }
    #[inline(always)]
    unsafe fn max(self, o: Self) -> Self { unsafe { Self(_mm256_max_ps(self.0, o.0), _mm256_max_ps(self.1, o.1)) } }
    #[inline(always)]
    unsafe fn min(self, o: Self) -> Self { unsafe { Self(_mm256_min_ps(self.0, o.0), _mm256_min_ps(self.1, o.1)) } }
    #[inline(always)]
    unsafe fn round(self) -> Self { unsafe { Self(_mm256_round_ps::<NEAREST>(self.0), _mm256_round_ps::<NEAREST>(self.1)) } }
    #[inline(always)]
    unsafe fn scale_by_power_of_two(self, e: Self) -> Self {
        unsafe {
            let bias = _mm256_set1_epi32(127);
            let power = |e| _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_add_epi32(_mm256_cvtps_epi32(e), bias)));
            Self(_mm256_mul_ps(self.0, power(e.0)), _mm256_mul_ps(self.1, power(e.1)))
        }
    }
}
