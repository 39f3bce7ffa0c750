//! Kernels broken on purpose: the emulator must detect each fault. A fault is a text of a kernel's
//! file that is replaced once. A text that no longer exists fails the test, so that the faults
//! follow the kernels.

use ankh3::kernels::cuda::launch::{Element, Launch};
use ankh3::kernels::cuda::norm;

use super::attention::first_fault;
use super::emulator::{Device, Emulator, source, without_compiler};
use super::reference::random;

/// Compiles `file` with the n-th occurrence of `from` replaced.
fn broken(file: &str, n: usize, from: &str, to: &str) -> &'static Emulator {
    let text = source(file);
    let at = text.match_indices(from).nth(n);
    let (at, _) = at.unwrap_or_else(|| panic!("{file} has no occurrence {n} of {from:?} to break"));
    let text = format!("{}{to}{}", &text[..at], &text[at + from.len()..]);
    Box::leak(Box::new(Emulator::compile(&text).unwrap()))
}

fn norm_fault(emulator: &'static Emulator, width: usize) -> Option<String> {
    let mut device = Device::new(emulator);
    let x = device.values("x", Element::F32, &random(1, 3 * width, 1.0));
    let weight = device.values("weight", Element::F32, &random(2, width, 1.0));
    let y = device.room("y", Element::F32, 3 * width);
    device
        .launch(&norm::rms_norm(
            Element::F32,
            [x, weight, y],
            3,
            width,
            1e-6,
        ))
        .err()
}

fn expect(fault: Option<String>, words: &str) {
    let fault = fault.unwrap_or_else(|| panic!("nothing was seen; expected {words:?}"));
    assert!(fault.contains(words), "expected {words:?}, found: {fault}");
}

#[test]
fn an_index_one_too_far() {
    if without_compiler() {
        return;
    }
    expect(
        norm_fault(Emulator::of("norm.cu"), 255).or(Some("sound".into())),
        "sound",
    );
    let far = broken(
        "norm.cu",
        0,
        "i < width; i += blockDim.x) {\n            const float v",
        "i <= width; i += blockDim.x) {\n            const float v",
    );
    // Row 0 and 1 read their neighbour unnoticed; the last leaves the buffer.
    expect(norm_fault(far, 255), "outside every buffer; nearest is x");
    let early = broken(
        "norm.cu",
        0,
        "width % LANES<T> == 0 && is_aligned16(x + row)",
        "true",
    );
    expect(
        norm_fault(early, 255),
        "outside every buffer; nearest is weight",
    );
}

#[test]
fn a_barrier_too_few() {
    if without_compiler() {
        return;
    }
    let sum = |n| {
        let header = source("common.cuh");
        let body = header.split("DEVICE float block_sum").nth(1).unwrap();
        let body = body.split("constexpr float LOG2_E").next().unwrap();
        let (at, barrier) = body.match_indices("__syncthreads();").nth(n).unwrap();
        let body = format!("{}{}", &body[..at], &body[at + barrier.len()..]);
        let text = source("norm.cu").replace("block_sum(", "broken_sum(");
        let include = "#include \"common.cuh\"\n";
        let text = text.replace(include, &format!("{include}DEVICE float broken_sum{body}"));
        &*Box::leak(Box::new(Emulator::compile(&text).unwrap()))
    };
    // The last threads run first, and find nothing yet.
    expect(
        norm_fault(sum(0), 300),
        "a read of what nobody wrote: shared memory",
    );
    // Without the second, a second sum overwrites what the first is read from: the backward pass
    // has two.
    let fault = {
        let mut device = Device::new(sum(1));
        let b = norm::NormGradients {
            x: device.values("x", Element::F32, &random(1, 600, 1.0)),
            weight: device.values("weight", Element::F32, &random(2, 300, 1.0)),
            grad: device.values("grad", Element::F32, &random(3, 600, 1.0)),
            dx: device.room("dx", Element::F32, 600),
            roots: device.room("roots", Element::F32, 2),
            partial: device.room("partial", Element::F32, 300),
            dw: device.room("dw", Element::F32, 300),
        };
        device
            .launch(&norm::backward(Element::F32, &b, 2, 300, 1e-6)[0])
            .err()
    };
    expect(fault, "no barrier between a read and this write");
}

/// Every barrier of the tensor-core kernels is needed, and missed.
#[test]
fn no_barrier_of_attention_can_go() {
    if without_compiler() {
        return;
    }
    let barriers = source("attention_mma.cu")
        .matches("__syncthreads();")
        .count();
    assert!(barriers >= 8, "{barriers}");
    for n in 0..barriers {
        let emulator = broken("attention_mma.cu", n, "__syncthreads();", "");
        let fault =
            first_fault(emulator, true).unwrap_or_else(|| panic!("barrier {n} is not missed"));
        let seen = ["no barrier between", "nobody wrote", "not waited for"];
        assert!(
            seen.iter().any(|words| fault.contains(words)),
            "barrier {n}: {fault}"
        );
    }
}

#[test]
fn a_copy_that_is_not_waited_for() {
    if without_compiler() {
        return;
    }
    let emulator = broken("attention_mma.cu", 0, "wait_copies<1>();", "");
    expect(
        first_fault(emulator, false),
        "an asynchronous copy is not waited for",
    );
    let emulator = broken(
        "attention_mma.cu",
        0,
        "wait_copies<1>();",
        "wait_copies<2>();",
    );
    expect(
        first_fault(emulator, false),
        "an asynchronous copy is not waited for",
    );
}

/// Wrong lanes read and write inside their arrays, so that mostly only the results show them.
#[test]
fn a_fragment_of_the_wrong_lane() {
    if without_compiler() {
        return;
    }
    let plants = [
        ("lane / 16 * 8), a[k])", "lane / 8 % 2 * 8), a[k])"),
        (
            "lane % 8 + lane / 16 * 8) * PITCH<D>",
            "lane % 16) * PITCH<D>",
        ),
        (
            "threadIdx.x % 32 / 4 + i / 2 * 8",
            "threadIdx.x % 32 / 4 + i % 2 * 8",
        ),
        (
            "n * 8 + threadIdx.x % 4 * 2 + i % 2",
            "n * 8 + threadIdx.x % 4 + i % 2",
        ),
        ("load_matrices_transposed(values", "load_matrices(values"),
        (
            "multiply_add(c[n], rows[k], b[0], b[1])",
            "multiply_add(c[n], rows[k], b[1], b[0])",
        ),
    ];
    for (from, to) in plants {
        let fault = first_fault(broken("attention_mma.cu", 0, from, to), false);
        let fault = fault.unwrap_or_else(|| panic!("{from} is not missed"));
        let seen = ["out is off by", "never written", "not aligned"];
        assert!(
            seen.iter().any(|words| fault.contains(words)),
            "{from}: {fault}"
        );
    }
}

/// Kernels that do nothing but wrong.
const WRONG: &str = r"
KERNEL parting(Global<float> x) {
    if (threadIdx.x < 40) {
        __syncthreads();
    } else {
        __syncthreads();
    }
    x[threadIdx.x] = 0.0f;
}
EXPORT(parting)
KERNEL ending(Global<float> x) {
    if (threadIdx.x == 5) return;
    __syncthreads();
    x[threadIdx.x] = 0.0f;
}
EXPORT(ending)
KERNEL warp_parting(Global<float> x) {
    if (threadIdx.x % 32 < 16) x[threadIdx.x] = warp_sum(1.0f);
}
EXPORT(warp_parting)
KERNEL unwritten(Global<float> x) {
    SharedRoom room;
    const Shared<float> y = room.take<float>(64);
    x[threadIdx.x] = y[threadIdx.x];
}
EXPORT(unwritten)
KERNEL beyond(Global<float> x) {
    SharedRoom room;
    const Shared<float> y = room.take<float>(63), z = room.take<float>(1);
    y[threadIdx.x] = 1.0f;
    z[0] = 1.0f;
    x[threadIdx.x] = 0.0f;
}
EXPORT(beyond)
KERNEL greedy(Global<float> x) {
    SharedRoom room;
    const Shared<float> y = room.take<float>(1000);
    y[threadIdx.x] = 1.0f;
    x[threadIdx.x] = 0.0f;
}
EXPORT(greedy)
KERNEL unaligned(Global<float> x) {
    store16(x + 4 * threadIdx.x + 1, Vec16{{0, 0, 0, 0}});
}
EXPORT(unaligned)
KERNEL colliding(Global<float> x) { x[threadIdx.x / 2] = 1.0f; }
EXPORT(colliding)
KERNEL blocks_colliding(Global<float> x) {
    if (threadIdx.x == 0) x[0] = 1.0f;
}
EXPORT(blocks_colliding)
KERNEL adding(Global<float> x) { atomic_add(x, 1.0f); }
EXPORT(adding)
KERNEL voting(Global<float> x) {
    const bool odd = vote_any(threadIdx.x == 3) && !vote_all(threadIdx.x == 3);
    __syncwarp();
    x[threadIdx.x] = odd ? 1.0f : 0.0f;
}
EXPORT(voting)
";

#[test]
fn what_else_is_seen() {
    if without_compiler() {
        return;
    }
    let text = format!("#include \"common.cuh\"\n{WRONG}");
    let emulator: &'static Emulator = Box::leak(Box::new(Emulator::compile(&text).unwrap()));
    let run = |kernel: &str, blocks: usize, count: usize| {
        let mut device = Device::new(emulator);
        let x = device.values("x", Element::F32, &vec![0.0; count]);
        let launch = Launch::new(kernel, [blocks, 1], [64, 1])
            .shared(&[4 * 64, 16])
            .addresses([x]);
        device
            .launch(&launch)
            .map(|()| device.read(x, Element::F32))
    };
    for (kernel, blocks, count, words) in [
        ("parting", 1, 64, "threads part ways"),
        ("ending", 1, 64, "has ended"),
        ("warp_parting", 1, 64, "part ways"),
        ("unwritten", 1, 64, "a read of what nobody wrote"),
        ("beyond", 1, 64, "outside a shared array of 252 bytes"),
        (
            "greedy",
            1,
            64,
            "the launch gives 272 bytes of shared memory, not 4000",
        ),
        (
            "colliding",
            1,
            64,
            "no barrier between a write and this access",
        ),
        (
            "blocks_colliding",
            2,
            64,
            "no barrier between a write and this access",
        ),
        ("unaligned", 1, 300, "not aligned to 16 bytes"),
        ("adding", 1, 0, "outside every buffer"),
        ("absent", 1, 64, "no such kernel"),
    ] {
        expect(
            run(kernel, blocks, count)
                .err()
                .map(|f| format!("{kernel}: {f}")),
            words,
        );
    }
    assert_eq!(run("adding", 2, 1).unwrap(), [128.0]);
    let votes = run("voting", 1, 64).unwrap();
    assert!(votes[..32].iter().all(|v| *v == 1.0) && votes[32..].iter().all(|v| *v == 0.0));
    let mut device = Device::new(emulator);
    let x = device.values("x", Element::F32, &[0.0; 64]);
    let launch = Launch::new("voting", [1, 1], [64, 1])
        .addresses([x])
        .ints([1]);
    expect(device.launch(&launch).err(), "arguments do not fit");
}
