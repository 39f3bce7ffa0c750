//! Packed attention in all its forms, forward and backward, on ragged segments around the tiles (32
//! and 64 rows).

mod case;

use ankh3::kernels::cuda::attention::Form;
use ankh3::kernels::cuda::launch::Element;
use ankh3::kernels::dropout::Dropout;
use ankh3::kernels::plan::Visibility;

use self::case::{Case, cores, plain, single};
use super::emulator::{Emulator, without_compiler};

const RAGGED: [usize; 8] = [1, 63, 64, 65, 2, 3, 130, 5];

#[test]
fn forward_of_every_form_and_width() {
    if without_compiler() {
        return;
    }
    for (element, form, widths) in [
        (
            Element::Bf16,
            cores as fn(usize) -> Form,
            &[64, 32, 40, 96, 128, 8][..],
        ),
        (Element::Bf16, plain, &[64, 20]),
        (Element::F32, plain, &[64, 32, 33, 128, 1]),
    ] {
        for d in widths {
            for visibility in [Visibility::All, Visibility::Causal] {
                Case {
                    d: *d,
                    visibility,
                    ..Case::new(element, form, &RAGGED)
                }
                .check(false);
            }
        }
    }
}

#[test]
fn long_segments() {
    if without_compiler() {
        return;
    }
    for (element, form) in [
        (Element::Bf16, cores as fn(usize) -> Form),
        (Element::F32, plain),
    ] {
        let case = Case {
            heads: 1,
            max_distance: 128,
            ..Case::new(element, form, &[1100, 33])
        };
        case.check(false);
        Case {
            visibility: Visibility::Causal,
            ..case
        }
        .check(false);
    }
}

#[test]
fn a_target_attends_to_its_source() {
    if without_compiler() {
        return;
    }
    // Cross-attention: no bias, other lengths than one's own, and a source without a token.
    for (element, form) in [
        (Element::Bf16, cores as fn(usize) -> Form),
        (Element::F32, plain),
    ] {
        let lengths = vec![(1, 70, 0), (65, 1, 0), (33, 64, 0), (7, 129, 0)];
        let case = Case {
            lengths,
            max_distance: 0,
            ..Case::new(element, form, &[])
        };
        case.check(false);
        case.check(true);
        let lengths = vec![(3, 0, 0), (5, 2, 0)];
        Case { lengths, ..case }.check(false);
    }
}

#[test]
fn decoding_one_query_at_a_time() {
    if without_compiler() {
        return;
    }
    for element in [Element::F32, Element::Bf16] {
        for d in [64, 32, 20, 128] {
            let lengths = vec![
                (1, 1, 0),
                (1, 31, 30),
                (1, 32, 31),
                (1, 33, 32),
                (1, 129, 128),
                (1, 300, 299),
            ];
            let case = Case {
                d,
                lengths,
                visibility: Visibility::Causal,
                ..Case::new(element, single, &[])
            };
            case.check(false);
            // A source: all keys, no bias; and none at all.
            let lengths = vec![(1, 1, 0), (1, 257, 0), (1, 0, 0)];
            Case {
                lengths,
                visibility: Visibility::All,
                max_distance: 0,
                ..case
            }
            .check(false);
        }
    }
}

#[test]
fn gradients_of_every_form_and_width() {
    if without_compiler() {
        return;
    }
    for (element, form, widths) in [
        (
            Element::Bf16,
            cores as fn(usize) -> Form,
            &[64, 32, 96, 128, 24][..],
        ),
        (Element::Bf16, plain, &[20]),
        (Element::F32, plain, &[64, 33, 128]),
    ] {
        for d in widths {
            for visibility in [Visibility::All, Visibility::Causal] {
                Case {
                    d: *d,
                    visibility,
                    ..Case::new(element, form, &[1, 63, 64, 65, 2, 130])
                }
                .check(true);
            }
        }
    }
}

#[test]
fn dropout_drops_what_the_cpu_drops() {
    if without_compiler() {
        return;
    }
    for (element, form) in [
        (Element::Bf16, cores as fn(usize) -> Form),
        (Element::F32, plain),
    ] {
        let dropout = Some(Dropout::new(0.25, 77));
        Case {
            dropout,
            ..Case::new(element, form, &[1, 65, 40])
        }
        .check(true);
    }
}

#[test]
fn a_segment_does_not_depend_on_its_neighbours() {
    if without_compiler() {
        return;
    }
    for (element, form) in [
        (Element::Bf16, cores as fn(usize) -> Form),
        (Element::F32, plain),
    ] {
        let alone = Case::new(element, form, &[90]);
        let values = alone.values();
        let together = Case::new(element, form, &[17, 90, 64]);
        let mut batch = together.values();
        let inner = alone.heads * alone.d;
        batch.q[17 * inner..107 * inner].copy_from_slice(&values.q);
        batch.kv[17 * 2 * inner..107 * 2 * inner].copy_from_slice(&values.kv);
        batch.bias.copy_from_slice(&values.bias);
        let results =
            [(&alone, &values), (&together, &batch)].map(|(case, values)| case.forward(values));
        assert_eq!(
            results[0],
            results[1][17 * inner..107 * inner],
            "{element:?}"
        );
    }
}

/// For `faults`: what a small case finds in a broken kernel.
pub fn first_fault(emulator: &'static Emulator, backward: bool) -> Option<String> {
    // With a bias and without: its gradient has barriers of its own.
    for (visibility, max_distance) in [(Visibility::All, 9), (Visibility::Causal, 0)] {
        let case = Case {
            heads: 1,
            visibility,
            max_distance,
            ..Case::new(Element::Bf16, cores, &[1, 150])
        };
        if let Err(fault) = case.run(emulator, backward) {
            return Some(fault);
        }
    }
    None
}
