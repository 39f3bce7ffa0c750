//! Sixteen f32 lanes, three ways: one AVX-512 register, two AVX2 registers, or an array that the compiler vectorises as it can.
//!
//! Every kernel is written once over [`Lanes`] and compiled once per instruction set by [`with_isa!`](super::dispatch). All three do the same
//! arithmetic lane by lane; only the portable form multiplies and adds in two roundings where the others fuse.
#![expect(
    unsafe_code,
    reason = "vector intrinsics; each implementor says what its callers promise"
)]

use std::sync::OnceLock;

/// Lanes in one [`Lanes`] value.
pub const LANES: usize = 16;

/// The instruction sets the CPU kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isa {
    /// Whatever the target's baseline is.
    Portable,
    /// AVX2 with FMA.
    Avx2,
    /// AVX-512F/BW/VL.
    Avx512,
    /// The same with AVX512-BF16: products of bf16 weights round the other operand to bf16 too.
    Avx512Bf16,
    /// The same with matrix tiles (AMX) for products of bf16 and int8 weights.
    Amx,
}

impl Isa {
    /// Every instruction set, slowest first.
    pub const ALL: [Isa; 5] = [
        Isa::Portable,
        Isa::Avx2,
        Isa::Avx512,
        Isa::Avx512Bf16,
        Isa::Amx,
    ];

    /// The name used by `ANKH3_CPU_ISA` and in provenance.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Portable => "portable",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
            Isa::Avx512Bf16 => "avx512bf16",
            Isa::Amx => "amx",
        }
    }

    /// Whether this machine can run it.
    pub fn is_available(self) -> bool {
        match self {
            Isa::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => {
                is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512vl")
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Bf16 => Isa::Avx512.is_available() && is_x86_feature_detected!("avx512bf16"),
            #[cfg(target_arch = "x86_64")]
            Isa::Amx => Isa::Avx512Bf16.is_available() && super::amx::is_available(),
            #[cfg(not(target_arch = "x86_64"))]
            _ => false,
        }
    }

    /// Whether products of bf16 weights round their other operand to bf16 too, as matrix units do.
    pub fn rounds_activations(self) -> bool {
        self >= Isa::Avx512Bf16
    }

    /// [`Lanes::TILE_WIDTH`] of its lanes.
    pub(super) fn tile_width(self) -> usize {
        match self {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 | Isa::Avx512Bf16 | Isa::Amx => Avx512::TILE_WIDTH,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => Avx2::TILE_WIDTH,
            _ => Portable::TILE_WIDTH,
        }
    }

    /// The best this machine has.
    pub fn best() -> Isa {
        *Isa::ALL
            .iter()
            .rev()
            .find(|isa| isa.is_available())
            .expect("portable is always available")
    }

    /// What `ANKH3_CPU_ISA` asks for, else the best.
    ///
    /// # Errors
    /// An unknown name, or one this CPU lacks.
    pub fn from_env() -> Result<Isa, String> {
        let Ok(name) = std::env::var("ANKH3_CPU_ISA") else {
            return Ok(Isa::best());
        };
        let known = Isa::ALL.map(Isa::name).join(", ");
        let isa = Isa::ALL
            .into_iter()
            .find(|isa| isa.name() == name)
            .ok_or_else(|| format!("ANKH3_CPU_ISA={name} is none of {known}"))?;
        if isa.is_available() {
            Ok(isa)
        } else {
            Err(format!(
                "ANKH3_CPU_ISA={name}, but this CPU lacks it; its best is {}",
                Isa::best().name()
            ))
        }
    }

    /// The instruction set of this process: [`Isa::from_env`], decided once; a request that cannot be met falls back to the best (the
    /// command line reports it as an error before any kernel runs).
    pub fn current() -> Isa {
        static CURRENT: OnceLock<Isa> = OnceLock::new();
        *CURRENT.get_or_init(|| Isa::from_env().unwrap_or_else(|_| Isa::best()))
    }
}

/// Asks for the line of memory at `place`, which need not be readable, to come as far as the second level of cache.
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
/// Methods may only run where the implementor's instruction set is available; pointers must be valid for 16 values (no alignment asked).
#[expect(
    clippy::missing_safety_doc,
    reason = "the section above holds for every method"
)]
pub unsafe trait Lanes: Copy {
    /// Rows of a tile of a matrix product: as many as the registers hold, [`Lanes::TILE_WIDTH`] wide, beside a row of B and a value of A.
    const TILE_ROWS: usize;
    /// As many with B in bf16, both values of a pair of which are held at once.
    const TILE_ROWS_BF16: usize = Self::TILE_ROWS;
    /// [`Lanes`] across a tile: two, or one where there are few registers.
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
        // Array by array: a loop over the widths would stay a loop.
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

/// Lanes of pairs of bf16, in the bits of f32, and the instruction that multiplies them.
///
/// # Safety
/// As [`Lanes`].
#[expect(
    clippy::missing_safety_doc,
    reason = "the section above holds for every method"
)]
pub unsafe trait Bf16Pairs: Lanes {
    /// Pairs `(even[i], odd[i])`, rounded to nearest even.
    unsafe fn pairs(even: Self, odd: Self) -> Self;
    /// `sums + even · even + odd · odd` of a pair of `left` for all lanes.
    unsafe fn add_dot(self, left: f32, right: Self) -> Self;
}

/// How a number that is computed with in f32 lies in memory.
///
/// # Safety
/// [`Stored::load`] reads sixteen values of `Self` and nothing else.
pub unsafe trait Stored: Copy + Send + Sync {
    /// Its value.
    fn value(self) -> f32;
    /// Reads sixteen values.
    ///
    /// # Safety
    /// As [`Lanes`].
    unsafe fn load<V: Lanes>(source: *const Self) -> V;
}

// SAFETY: sixteen f32.
unsafe impl Stored for f32 {
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
unsafe impl Stored for half::bf16 {
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

/// Sixteen lanes in an array, with the tile that they are best used in.
#[derive(Clone, Copy)]
pub struct Array<const ROWS: usize, const WIDTH: usize>([f32; LANES]);

/// The portable form. Sixteen lanes are four registers of the target's baseline: of 16 on x86-64, of 32 on aarch64.
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
mod x86;

#[cfg(target_arch = "x86_64")]
pub use x86::{Avx2, Avx512, interleaved};

/// `e^x` to about 1 ulp for x in [-87, 88]; below, 2^-126 or less; above, held at e^88. Cody-Waite reduction and the minimax polynomial of
/// Cephes `expf` (S. Moshier, netlib.org/cephes).
///
/// # Safety
/// As [`Lanes`].
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
