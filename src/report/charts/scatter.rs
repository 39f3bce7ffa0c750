//! Pairs of numbers of one kind as dots, with the line on which both are equal.

use plotters::prelude::*;

use super::axes::{Axis, decimals, fixed, plane};
use super::canvas::{Area, DrawingError, Heading, Painting, drawing};
use super::colours::{AXIS, BLUE};

/// Pixels of the coordinate system with its labels.
const SIDE: i32 = 540;

/// A scatter plot.
#[derive(Clone, Debug, PartialEq)]
pub struct ScatterPlot {
    /// Title, and how the numbers were made.
    pub heading: Heading,
    /// The horizontal axis, such as `measured`.
    pub x_label: String,
    /// The vertical axis, such as `predicted`.
    pub y_label: String,
    /// The number upwards, then the number to the right.
    pub pairs: Vec<(f64, f64)>,
}

impl ScatterPlot {
    /// From below the least to above the largest number of all pairs.
    fn range(&self) -> (f64, f64) {
        let all = self.pairs.iter().flat_map(|(up, right)| [*up, *right]);
        let (low, high) = all.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| {
            (low.min(x), high.max(x))
        });
        if low > high {
            return (0.0, 1.0);
        }
        let margin = ((high - low) * 0.04).max(1e-9);
        (low - margin, high + margin)
    }
}

impl Painting for ScatterPlot {
    fn size(&self) -> (u32, u32) {
        let width = SIDE.max(24 + self.heading.width());
        (width as u32, (SIDE - 24 + Heading::HEIGHT) as u32)
    }

    fn paint<B: DrawingBackend>(&self, area: &Area<B>) -> Result<(), DrawingError> {
        self.heading.draw(area, 16)?;
        let (_, below) = area.split_vertically(Heading::HEIGHT - 8);
        let (below, _) = below.split_horizontally(SIDE);
        let (low, high) = self.range();
        let digits = decimals(high - low).saturating_sub(1);
        let format = |value| fixed(value, digits);
        let axis = |label| Axis {
            label,
            range: (low, high),
            ticks: 7,
            format: &format,
        };
        let mut plane = plane(&below, "", &axis(&self.x_label), &axis(&self.y_label))?;
        let equal = PathElement::new([(low, low), (high, high)], AXIS.mix(0.6));
        plane.draw_series([equal]).map_err(drawing)?;
        let dots = self
            .pairs
            .iter()
            .map(|(up, right)| Circle::new((*right, *up), 2, BLUE.mix(0.35).filled()));
        plane.draw_series(dots).map_err(drawing)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::canvas::svg;
    use super::*;

    #[test]
    fn one_dot_per_pair_and_the_labels_that_the_caller_gives() {
        let plot = ScatterPlot {
            heading: Heading::new("gb1", "Spearman 0.5"),
            x_label: "by separation alone".to_owned(),
            y_label: "by the model".to_owned(),
            pairs: vec![(0.1, -1.0), (2.0, 4.0)],
        };
        let text = svg(&plot).unwrap();
        assert_eq!(text.matches("<circle").count(), 2);
        for words in ["gb1", "Spearman 0.5", "by separation alone", "by the model"] {
            assert!(text.contains(words), "{words}: {text}");
        }
        assert!(!text.contains("measured"), "{text}");
        let nothing = ScatterPlot {
            pairs: Vec::new(),
            ..plot
        };
        assert!(svg(&nothing).is_ok());
    }

    #[test]
    fn the_first_number_of_a_pair_points_upwards() {
        let plot = ScatterPlot {
            heading: Heading::default(),
            x_label: String::new(),
            y_label: String::new(),
            pairs: vec![(1.0, 0.0), (0.0, 0.0)],
        };
        let text = svg(&plot).unwrap();
        let mut heights = text.split("<circle").skip(1).map(|circle| {
            let (_, height) = circle.split_once("cy=\"").unwrap();
            height.split('"').next().unwrap().parse::<i32>().unwrap()
        });
        assert!(heights.next() < heights.next(), "{text}");
    }
}
