//! Launches of `elementwise.cu`.

use super::launch::{Address, Argument, Element, Launch};
use crate::kernels::dropout::Dropout;
use crate::kernels::plan::Activation;

const THREADS: u32 = 128;

fn number(activation: Activation) -> usize {
    match activation {
        Activation::Relu => 0,
        Activation::GeluNew => 1,
        Activation::Silu => 2,
    }
}

/// `out = activation(gate) · up`, `x (rows, 2 d_ff)` = gate beside up.
pub fn gated(
    element: Element,
    activation: Activation,
    [x, out]: [Address; 2],
    rows: usize,
    d_ff: usize,
) -> Launch {
    let columns = d_ff.div_ceil(THREADS as usize * element.lanes());
    Launch::of("gated", element, [rows, columns], [THREADS, 1])
        .addresses([x, out])
        .ints([d_ff, number(activation)])
}

/// Gradient of `x` from that of the result: addresses of x, grad, dx.
pub fn gated_backward(
    element: Element,
    activation: Activation,
    addresses: [Address; 3],
    rows: usize,
    d_ff: usize,
) -> Launch {
    let columns = d_ff.div_ceil(THREADS as usize);
    Launch::of("gated_backward", element, [rows, columns], [THREADS, 1])
        .addresses(addresses)
        .ints([d_ff, number(activation)])
}

/// `out = residual + x · factor`, or without the residual where its address is null: addresses of
/// x, residual, out.
pub fn dropout(
    element: Element,
    dropout: Dropout,
    addresses: [Address; 3],
    count: usize,
) -> Launch {
    let parts = dropout.parts();
    Launch::of("dropout", element, [count.div_ceil(256), 1], [256, 1])
        .addresses(addresses)
        .with(Argument::structure().word(count as u64))
        .with(Argument::structure().word(parts.key))
        .with(Argument::structure().half(parts.threshold))
        .float(parts.scale)
}
