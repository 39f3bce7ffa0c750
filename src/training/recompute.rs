//! Gradients in less memory (Chen et al. 2016, arXiv 1604.06174). The forward pass keeps only the
//! inputs of some layers. The backward pass goes from the last layer to the first: it computes the
//! layer again with its graph, computes the gradient of the layer's input through the graph, and
//! drops the graph.
//!
//! With every layer's input kept, the memory is n inputs and one layer's graph, and a step computes
//! the forward pass twice. With only every √n-th input kept, the inputs between are computed again
//! one stretch at a time: 2√n inputs and one layer's graph, and three forward passes. The gradients
//! are those of [`Network::taped`] with everything kept, except for the order in which the gradient
//! of the embedding table is summed; dropout's masks are functions of their place. On a CPU
//! `backprop` does the same without a tape.

use candle_core::backprop::GradStore;
use candle_core::{Result, Tensor, Var};

use super::batch::Batch;
use super::network::{Activations, Network, WeightGradients, flat};
use super::variables::Variables;
use crate::kernels::cross_entropy::cross_entropy;
use crate::kernels::dropout::Dropout;
use crate::model::names::Stack;
use crate::model::{Decoder, Encoder, Mode};

/// A tensor that many layers read, detached from its graph, and the sum of the layers' gradients of
/// it.
struct Shared {
    variable: Var,
    gradient: Option<Tensor>,
}

impl Shared {
    fn new(tensor: &Tensor) -> Result<Self> {
        Ok(Self {
            variable: Var::from_tensor(tensor)?,
            gradient: None,
        })
    }

    fn take(&mut self, store: &mut GradStore) -> Result<()> {
        add(&mut self.gradient, store.remove(&self.variable))
    }

    /// The gradients of everything that `tensor` was computed from.
    fn pull(self, tensor: &Tensor) -> Result<Option<GradStore>> {
        self.gradient
            .map(|gradient| pull(tensor, &gradient))
            .transpose()
    }
}

fn add(sum: &mut Option<Tensor>, gradient: Option<Tensor>) -> Result<()> {
    if let Some(gradient) = gradient {
        *sum = Some(match sum.take() {
            Some(sum) => (sum + gradient)?,
            None => gradient,
        });
    }
    Ok(())
}

/// The gradients of everything that `output` was computed from, where `gradient` is the gradient of
/// `output`.
fn pull(output: &Tensor, gradient: &Tensor) -> Result<GradStore> {
    (output * gradient)?.sum_all()?.backward()
}

/// The sums of the weights' gradients.
struct GradientSums<'a> {
    variables: &'a Variables,
    sums: Vec<Option<Tensor>>,
}

impl GradientSums<'_> {
    fn take(&mut self, store: &mut GradStore) -> Result<()> {
        for ((_, variable), sum) in self.variables.iter().zip(&mut self.sums) {
            add(sum, store.remove(variable))?;
        }
        Ok(())
    }

    fn finish(self) -> Result<WeightGradients> {
        let named = self.variables.iter().zip(self.sums);
        named
            .map(|((name, variable), sum)| Ok((name.to_owned(), flat(variable, sum)?)))
            .collect()
    }
}

/// The kept inputs of a stack, and its last output.
struct StackInputs {
    layers: usize,
    stride: usize,
    inputs: Vec<Tensor>,
    last: Tensor,
}

/// A layer of a stack: from its number and its input to its output.
type Layer<'a> = dyn Fn(usize, &Tensor) -> Result<Tensor> + 'a;

impl StackInputs {
    /// Runs the layers without keeping their graphs.
    fn run(first: &Tensor, layers: usize, stride: usize, layer: &Layer<'_>) -> Result<Self> {
        let (mut x, mut inputs) = (first.detach(), Vec::new());
        for number in 0..layers {
            if number % stride == 0 {
                inputs.push(x.clone());
            }
            x = layer(number, &x)?.detach();
        }
        Ok(StackInputs {
            layers,
            stride,
            inputs,
            last: x,
        })
    }

    /// The gradient of the first layer's input from the gradient of the last layer's output; `take`
    /// gets all other gradients of each layer.
    fn pull(
        self,
        mut gradient: Tensor,
        layer: &Layer<'_>,
        mut take: impl FnMut(&mut GradStore) -> Result<()>,
    ) -> Result<Tensor> {
        drop(self.last);
        for (stretch, input) in self.inputs.into_iter().enumerate().rev() {
            let first = stretch * self.stride;
            let end = (first + self.stride).min(self.layers);
            let mut inputs = vec![input];
            for number in first..end - 1 {
                let next = layer(number, &inputs[number - first])?.detach();
                inputs.push(next);
            }
            for (place, input) in inputs.into_iter().enumerate().rev() {
                let input = Var::from_tensor(&input)?;
                let mut store = pull(&layer(first + place, &input)?, &gradient)?;
                gradient = gradient_of(&input, &mut store)?;
                take(&mut store)?;
            }
        }
        Ok(gradient)
    }
}

fn gradient_of(input: &Var, store: &mut GradStore) -> Result<Tensor> {
    match store.remove(input) {
        Some(gradient) => Ok(gradient),
        None => input.zeros_like(),
    }
}

/// The loss of every label and the gradients of the sum of losses, with the activations `kept` in
/// memory.
pub(super) fn gradients(
    network: &Network<'_>,
    variables: &Variables,
    batch: &Batch,
    dropout: Option<Dropout>,
    kept: Activations,
) -> Result<(Vec<f32>, WeightGradients)> {
    let loader = network.loader(variables);
    let encoder = Encoder::load(&loader, network.config)?;
    let decoder = Decoder::load(&loader, network.config)?;
    let encoder_mode = Mode::new(dropout, Stack::Encoder, network.config);
    let decoder_mode = Mode::new(dropout, Stack::Decoder, network.config);
    let stride = |layers| kept.stride(layers).unwrap_or(layers).max(1);
    let mut weights = GradientSums {
        variables,
        sums: variables.iter().map(|_| None).collect(),
    };

    let plan = encoder.plan(&batch.source);
    let mut encoder_bias = Shared::new(encoder.bias())?;
    let bias = encoder_bias.variable.clone();
    let encode = |number, x: &Tensor| encoder.layer(number, x, &bias, &plan, encoder_mode);
    let layers = network.config.num_layers;
    let first = encoder.embedded(&batch.source, encoder_mode)?;
    let encoder_kept = StackInputs::run(&first, layers, stride(layers), &encode)?;
    drop(first);
    let mut encoded = Shared::new(&encoder.finished(&encoder_kept.last, encoder_mode)?)?;

    let numbers: Vec<usize> = (0..batch.tasks.len()).collect();
    let segments: Vec<_> = batch.source.segments().collect();
    let plans = decoder.plans(&batch.target, &numbers, &segments)?;
    let mut decoder_bias = Shared::new(decoder.bias())?;
    let (bias, source) = (decoder_bias.variable.clone(), encoded.variable.clone());
    let decode = |number, x: &Tensor| {
        let keys_values = decoder.keys_values(number, &source)?;
        decoder.layer(number, x, &keys_values, &bias, &plans, decoder_mode)
    };
    let layers = network.config.decoder_layers();
    let first = decoder.embedded(&batch.target, decoder_mode)?;
    let decoder_kept = StackInputs::run(&first, layers, stride(layers), &decode)?;
    drop(first);

    let last = Var::from_tensor(&decoder_kept.last)?;
    let logits = decoder.finished(&last, decoder_mode)?;
    let losses = cross_entropy(&logits, &batch.labels, network.z_loss)?;
    let mut store = losses.sum_all()?.backward()?;
    let losses = losses.to_vec1()?;
    let gradient = gradient_of(&last, &mut store)?;
    weights.take(&mut store)?;
    drop((store, logits, last));

    let decoder_first = decoder_kept.pull(gradient, &decode, |store| {
        decoder_bias.take(store)?;
        encoded.take(store)?;
        weights.take(store)
    })?;
    let finished = Var::from_tensor(&encoder_kept.last)?;
    let output = encoder.finished(&finished, encoder_mode)?;
    let gradient = match encoded.pull(&output)? {
        Some(mut store) => {
            let gradient = gradient_of(&finished, &mut store)?;
            weights.take(&mut store)?;
            gradient
        }
        None => finished.zeros_like()?,
    };
    drop((output, finished));
    let encoder_first = encoder_kept.pull(gradient, &encode, |store| {
        encoder_bias.take(store)?;
        weights.take(store)
    })?;

    // The encoder's embedding before the decoder's, as in [`Network::taped`] with everything kept.
    let embedded = encoder.embedded(&batch.source, encoder_mode)?;
    weights.take(&mut pull(&embedded, &encoder_first)?)?;
    let embedded = decoder.embedded(&batch.target, decoder_mode)?;
    weights.take(&mut pull(&embedded, &decoder_first)?)?;
    for (shared, tensor) in [
        (encoder_bias, encoder.bias()),
        (decoder_bias, decoder.bias()),
    ] {
        if let Some(mut store) = shared.pull(tensor)? {
            weights.take(&mut store)?;
        }
    }
    Ok((losses, weights.finish()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strides() {
        let table = [
            (Activations::Keep, 48, None),
            (Activations::Layers, 48, Some(1)),
            (Activations::Sqrt, 48, Some(7)),
            (Activations::Sqrt, 49, Some(7)),
            (Activations::Sqrt, 3, Some(2)),
            (Activations::Sqrt, 1, Some(1)),
        ];
        for (activations, layers, expected) in table {
            assert_eq!(
                activations.stride(layers),
                expected,
                "{activations:?} {layers}"
            );
        }
    }
}
