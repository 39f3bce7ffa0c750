//! A histogram: how many values lie in each bin.

use plotters::prelude::*;

use super::axes::{Axis, plane};
use super::canvas::{Area, DrawingError, Painting, drawing};
use super::colours::BLUE;
use crate::report::numbers::{Bins, Scale, short};

/// Bars over the bins.
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram {
    /// Counted values.
    pub bins: Bins,
    /// The horizontal axis, such as `residues`.
    pub x_label: String,
}

impl Painting for Histogram {
    fn size(&self) -> (u32, u32) {
        (460, 260)
    }

    fn paint<B: DrawingBackend>(&self, area: &Area<B>) -> Result<(), DrawingError> {
        let bins = &self.bins;
        let highest = bins.counts.iter().copied().max().unwrap_or(1) as f64;
        let label = match bins.scale {
            Scale::Linear => self.x_label.clone(),
            Scale::Log10 => format!("{} (logarithmic)", self.x_label),
        };
        let x = Axis {
            label: &label,
            range: (bins.low, bins.high()),
            ticks: 6,
            format: &|place| bins.scale.label(place),
        };
        let y = Axis {
            label: "count",
            range: (0.0, highest * 1.05),
            ticks: 5,
            format: &short,
        };
        let mut plane = plane(area, "", &x, &y)?;
        let bars = bins.counts.iter().enumerate().map(|(bar, count)| {
            let left = bins.low + bins.width * bar as f64;
            let corners = [(left, 0.0), (left + bins.width, *count as f64)];
            let mut bar = Rectangle::new(corners, BLUE.filled());
            bar.set_margin(0, 0, 1, 0);
            bar
        });
        plane.draw_series(bars).map_err(drawing)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::canvas::{inline_svg, svg};
    use super::*;

    #[test]
    fn one_bar_per_bin_and_its_labels() {
        let histogram = Histogram {
            bins: Bins::of(&[1.0, 2.0, 3.0, 4.0, 5.0]).unwrap(),
            x_label: "residues & more".to_owned(),
        };
        let inline = inline_svg(&histogram).unwrap();
        assert!(
            inline.starts_with("<svg") && inline.contains("residues &amp; more"),
            "{inline}"
        );
        let bars = histogram.bins.counts.len();
        assert_eq!(inline.matches("#2166AC").count(), bars);
        assert!(!inline.contains("#FFFFFF") && svg(&histogram).unwrap().contains("#FFFFFF"));
    }
}
