//! Predicted against measured numbers, a dot a pair, with the line on which they are equal.

use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use super::{rectangle, step, write};
use crate::report::picture::{Area, Painting, PictureError, drawing};

const SIDE: i32 = 440;
const LEFT: i32 = 80;
const TOP: i32 = 60;
const DOT: RGBColor = RGBColor(33, 102, 172);
const GREY: RGBColor = RGBColor(160, 160, 160);

/// What is drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct ScatterPlot {
    /// Above the picture.
    pub title: String,
    /// Below it, such as the correlation.
    pub note: String,
    /// What the first and the second numbers of the pairs are.
    pub sides: (String, String),
    /// Upwards and to the right, such as predicted and measured.
    pub pairs: Vec<(f64, f64)>,
}

impl ScatterPlot {
    /// The least and the largest number of either side, with a little room.
    fn bounds(&self) -> (f64, f64) {
        let all = self.pairs.iter().flat_map(|(p, t)| [*p, *t]);
        let (low, high) = all.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| {
            (low.min(x), high.max(x))
        });
        if low > high {
            return (0.0, 1.0);
        }
        let room = ((high - low) * 0.04).max(1e-9);
        (low - room, high + room)
    }
}

impl Painting for ScatterPlot {
    fn size(&self) -> (u32, u32) {
        ((LEFT + SIDE + 30) as u32, (TOP + SIDE + 60) as u32)
    }

    fn paint<B: DrawingBackend>(&self, area: &Area<B>) -> Result<(), PictureError> {
        let (low, high) = self.bounds();
        let place = |value: f64| ((value - low) / (high - low) * f64::from(SIDE)) as i32;
        let at = |x: f64, y: f64| (LEFT + place(x), TOP + SIDE - place(y));
        write(area, &self.title, (LEFT, 8), 16, (HPos::Left, BLACK))?;
        write(area, &self.note, (LEFT, 32), 12, (HPos::Left, BLACK))?;
        let line = PathElement::new(vec![at(low, low), at(high, high)], GREY);
        area.draw(&line).map_err(drawing)?;
        for (up, right) in &self.pairs {
            let dot = Circle::new(at(*right, *up), 2, DOT.mix(0.35).filled());
            area.draw(&dot).map_err(drawing)?;
        }
        for (corner, size) in [((0, 0), (1, SIDE)), ((0, SIDE), (SIDE, 1))] {
            rectangle(area, (LEFT + corner.0, TOP + corner.1), size, BLACK)?;
        }
        let every = step(high - low, 6.0);
        let digits = (-every.log10().floor()).max(0.0) as usize;
        let mut value = (low / every).ceil() * every;
        while value <= high {
            // −0 reads oddly.
            let words = format!(
                "{:.digits$}",
                if value.abs() < every / 2.0 {
                    0.0
                } else {
                    value
                }
            );
            let (x, _) = at(value, low);
            write(area, &words, (x, TOP + SIDE + 6), 11, (HPos::Center, BLACK))?;
            let (_, y) = at(low, value);
            write(area, &words, (LEFT - 6, y - 6), 11, (HPos::Right, BLACK))?;
            value += every;
        }
        write(
            area,
            "measured",
            (LEFT + SIDE / 2, TOP + SIDE + 26),
            12,
            (HPos::Center, BLACK),
        )?;
        write(area, &self.sides.0, (8, TOP - 16), 12, (HPos::Left, BLACK))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::picture::svg;

    #[test]
    fn a_dot_a_pair_and_round_numbers_on_the_axes() {
        let plot = ScatterPlot {
            title: "gb1".to_owned(),
            note: "Spearman 0.5".to_owned(),
            sides: ("predicted".to_owned(), "measured".to_owned()),
            pairs: vec![(0.1, -1.0), (2.0, 4.0)],
        };
        let text = svg(&plot).unwrap();
        assert_eq!(text.matches("<circle").count(), 2);
        assert!(text.contains("gb1") && text.contains("Spearman 0.5") && text.contains("measured"));
        let nothing = ScatterPlot {
            pairs: Vec::new(),
            ..plot
        };
        assert!(svg(&nothing).is_ok());
    }
}
