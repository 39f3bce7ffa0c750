//! Sixteen i32 sums and the instruction that adds to them: four signed bytes of A by four unsigned
//! bytes of a weight, or two signed 16-bit integers by two, summed up exactly.
//!
//! Integer sums have no rounding: every form below, every order and every tile gives the same bits.
//! AVX-512-VNNI multiplies and adds a whole group in one instruction. The other instruction sets
//! split bytes into even and odd 16-bit halves and multiply-add those, because `pmaddubsw`, which
//! takes bytes, saturates.
#![expect(
    unsafe_code,
    reason = "vector intrinsics; each implementor says what its callers promise"
)]

use std::marker::PhantomData;

use super::layout::LANES;

/// What turns the sums of one row of A into results: `(sum - offset) · scale`.
#[derive(Clone, Copy)]
pub(super) struct RowScale {
    /// The excess of every sum of the row: weights are stored unsigned.
    pub offset: i32,
    /// The scale of the row.
    pub scale: f32,
}

/// The sums of sixteen columns.
///
/// # Safety
/// Methods may only run where the implementor's instruction set is available; pointers must be
/// valid for 64 bytes, those of [`Sums::left`] for four.
pub(super) unsafe trait Sums: Copy {
    /// A group (four bytes) of each of sixteen columns.
    type Weights: Copy;
    /// A group of one row of A, for all columns.
    type Left: Copy;
    /// Rows of a tile of [`Sums::WIDTH`] vectors that fit the registers.
    const TILE_ROWS: usize;
    /// Vectors of sixteen columns side by side in a tile.
    const WIDTH: usize;
    /// Sums of zero.
    unsafe fn zero() -> Self;
    /// Reads sixteen sums.
    unsafe fn load(source: *const i32) -> Self;
    /// Reads one group of sixteen columns: 16 × 4 bytes.
    unsafe fn weights(source: *const u8) -> Self::Weights;
    /// Reads one group of A.
    unsafe fn left(source: *const i32) -> Self::Left;
    /// Adds the products of one group to the sum of each column.
    unsafe fn add_dot(self, left: Self::Left, weights: Self::Weights) -> Self;
    /// The sums as an array.
    unsafe fn to_array(self) -> [i32; LANES];
    /// Writes sixteen results `(sum - offset) · (scale · scales) + residual` to `target`, each
    /// operation rounded by itself.
    ///
    /// # Safety
    /// As for the trait; `scales`, `residual` and `target` are valid for sixteen floats.
    #[inline(always)]
    unsafe fn write(
        self,
        row: RowScale,
        scales: *const f32,
        residual: Option<*const f32>,
        target: *mut f32,
    ) {
        // SAFETY: passed on from the caller.
        unsafe {
            for (lane, sum) in self.to_array().into_iter().enumerate() {
                let mut value = (sum - row.offset) as f32 * (row.scale * *scales.add(lane));
                if let Some(residual) = residual {
                    value += *residual.add(lane);
                }
                *target.add(lane) = value;
            }
        }
    }
}

/// Sixteen sums in an array, of groups of `N` integers, in plain Rust.
#[derive(Clone, Copy)]
pub(super) struct ArraySums<A, W, const N: usize>([i32; LANES], PhantomData<(A, W)>);

/// Sums of groups of bytes.
pub(super) type Portable8 = ArraySums<i8, u8, 4>;
/// Sums of groups of 16-bit integers.
pub(super) type Portable16 = ArraySums<i16, i16, 2>;

// SAFETY: no instruction beyond the target's baseline; pointers are the caller's promise; groups
// are four bytes.
unsafe impl<A, W, const N: usize> Sums for ArraySums<A, W, N>
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
                // Only the sums of a row that is not finite overflow, and the scale of such a row
                // is NaN.
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
    use super::{LANES, RowScale, Sums};
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

    /// One register of AVX-512-VNNI; integers of `BITS` bits.
    #[derive(Clone, Copy)]
    pub(crate) struct VnniSums<const BITS: usize>(__m512i);

    // SAFETY: intrinsics of AVX-512F and -VNNI, whose presence the trait's callers promise.
    #[rustfmt::skip]
    unsafe impl<const BITS: usize> Sums for VnniSums<BITS> {
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
        unsafe fn write(self, row: RowScale, scales: *const f32, residual: Option<*const f32>, target: *mut f32) {
            unsafe { write_512(self.0, row, scales, residual, target) }
        }
    }

    /// One register of AVX-512BW; bytes.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx512Sums(__m512i);

    // SAFETY: intrinsics of AVX-512F and -BW, whose presence the trait's callers promise.
    #[rustfmt::skip]
    unsafe impl Sums for Avx512Sums {
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
        unsafe fn write(self, row: RowScale, scales: *const f32, residual: Option<*const f32>, target: *mut f32) {
            unsafe { write_512(self.0, row, scales, residual, target) }
        }
    }

    /// [`Sums::write`] of one register.
    #[inline(always)]
    unsafe fn write_512(
        sums: __m512i,
        row: RowScale,
        scales: *const f32,
        residual: Option<*const f32>,
        target: *mut f32,
    ) {
        // SAFETY: passed on from `Sums::write`.
        unsafe {
            let sums = _mm512_cvtepi32_ps(_mm512_sub_epi32(sums, _mm512_set1_epi32(row.offset)));
            let scales = _mm512_mul_ps(_mm512_set1_ps(row.scale), _mm512_loadu_ps(scales));
            let mut values = _mm512_mul_ps(sums, scales);
            if let Some(residual) = residual {
                values = _mm512_add_ps(values, _mm512_loadu_ps(residual));
            }
            _mm512_storeu_ps(target, values);
        }
    }

    /// Two registers of AVX2; bytes.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx2Sums([__m256i; 2]);

    // SAFETY: intrinsics of AVX2, whose presence the trait's callers promise.
    #[rustfmt::skip]
    unsafe impl Sums for Avx2Sums {
        /// Even bytes and odd bytes as 16-bit integers, of columns 0 to 7 and of columns 8 to 15.
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
        unsafe fn write(self, row: RowScale, scales: *const f32, residual: Option<*const f32>, target: *mut f32) {
            for (half, sums) in self.0.into_iter().enumerate() {
                unsafe {
                    let sums = _mm256_cvtepi32_ps(_mm256_sub_epi32(sums, _mm256_set1_epi32(row.offset)));
                    let scales = _mm256_mul_ps(_mm256_set1_ps(row.scale), _mm256_loadu_ps(scales.add(8 * half)));
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
pub(super) use x86::{Avx2Sums, Avx512Sums, VnniSums};

/// `with_integers!((isa, bits), kernel(name: Type, …)(argument, …))`: as [`with_isa!`](super::isa),
/// for [`IntegerIsa`]. For 16-bit integers, AVX-512-VNNI is the only form beside plain Rust.
macro_rules! with_integers {
    ($how:expr, $kernel:ident($($name:ident: $kind:ty),* $(,)?)($($argument:expr),* $(,)?)) => {{
        #[cfg(target_arch = "x86_64")]
        $crate::kernels::cpu::integer_lanes::with_integers!(@ vnni, "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma", $crate::kernels::cpu::integer_lanes::VnniSums<8>, $kernel($($name: $kind),*));
        #[cfg(target_arch = "x86_64")]
        $crate::kernels::cpu::integer_lanes::with_integers!(@ vnni_16, "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma", $crate::kernels::cpu::integer_lanes::VnniSums<16>, $kernel($($name: $kind),*));
        #[cfg(target_arch = "x86_64")]
        $crate::kernels::cpu::integer_lanes::with_integers!(@ avx512, "avx512f,avx512bw,avx512vl,avx2,fma", $crate::kernels::cpu::integer_lanes::Avx512Sums, $kernel($($name: $kind),*));
        #[cfg(target_arch = "x86_64")]
        $crate::kernels::cpu::integer_lanes::with_integers!(@ avx2, "avx2,fma", $crate::kernels::cpu::integer_lanes::Avx2Sums, $kernel($($name: $kind),*));
        match $how {
            #[cfg(target_arch = "x86_64")]
            ($crate::kernels::cpu::isa::IntegerIsa::Vnni | $crate::kernels::cpu::isa::IntegerIsa::Amx, $crate::kernels::cpu::integer_weight::Bits::Eight) => vnni($($argument),*),
            #[cfg(target_arch = "x86_64")]
            ($crate::kernels::cpu::isa::IntegerIsa::Vnni | $crate::kernels::cpu::isa::IntegerIsa::Amx, $crate::kernels::cpu::integer_weight::Bits::Sixteen) => vnni_16($($argument),*),
            #[cfg(target_arch = "x86_64")]
            ($crate::kernels::cpu::isa::IntegerIsa::Avx512, $crate::kernels::cpu::integer_weight::Bits::Eight) => avx512($($argument),*),
            #[cfg(target_arch = "x86_64")]
            ($crate::kernels::cpu::isa::IntegerIsa::Avx2, $crate::kernels::cpu::integer_weight::Bits::Eight) => avx2($($argument),*),
            (_, $crate::kernels::cpu::integer_weight::Bits::Eight) => $kernel::<$crate::kernels::cpu::integer_lanes::Portable8>($($argument),*),
            (_, $crate::kernels::cpu::integer_weight::Bits::Sixteen) => $kernel::<$crate::kernels::cpu::integer_lanes::Portable16>($($argument),*),
        }
    }};
    (@ $function:ident, $features:literal, $sums:ty, $kernel:ident($($name:ident: $kind:ty),*)) => {
        #[target_feature(enable = $features)]
        unsafe fn $function($($name: $kind),*) {
            // SAFETY: the features are enabled here; the rest is the caller's promise.
            unsafe { $kernel::<$sums>($($name),*) }
        }
    };
}
pub(super) use with_integers;
