//! Pictures of predictions: contact maps, confusion matrices, predicted against measured numbers.

mod confusion;
mod contact_map;
mod scatter;

pub use confusion::ConfusionPlot;
pub use contact_map::ContactPlot;
pub use scatter::ScatterPlot;

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::picture::{Area, FONT, PictureError, drawing};

/// A filled rectangle.
fn rectangle<B: DrawingBackend>(
    area: &Area<B>,
    (x, y): (i32, i32),
    (width, height): (i32, i32),
    colour: RGBColor,
) -> Result<(), PictureError> {
    let corners = [(x, y), (x + width, y + height)];
    area.draw(&Rectangle::new(corners, colour.filled()))
        .map_err(drawing)
}

/// Words.
fn write<B: DrawingBackend>(
    area: &Area<B>,
    text: &str,
    at: (i32, i32),
    size: u32,
    (side, colour): (HPos, RGBColor),
) -> Result<(), PictureError> {
    let style = TextStyle::from((FONT, size).into_font())
        .color(&colour)
        .pos(Pos::new(side, VPos::Top));
    area.draw_text(text, &style, at).map_err(drawing)
}

/// White at 0, dark blue at 1.
fn shade(value: f64) -> RGBColor {
    let strength = if value.is_finite() {
        value.clamp(0.0, 1.0)
    } else {
        0.0
    };
    let end = [8.0, 48.0, 107.0];
    let [r, g, b] = end.map(|end| (255.0 + (end - 255.0) * strength).round() as u8);
    RGBColor(r, g, b)
}

/// Steps between labels of an axis, so that about `most` of them stand on it.
fn step(length: f64, most: f64) -> f64 {
    let rough = (length / most).max(f64::MIN_POSITIVE);
    let power = 10f64.powf(rough.log10().floor());
    let fits = [1.0, 2.0, 5.0].into_iter().find(|m| m * power >= rough);
    fits.unwrap_or(10.0) * power
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_stand_at_round_numbers() {
        for (length, expected) in [(100.0, 20.0), (7.0, 1.0), (0.3, 0.05), (1234.0, 200.0)] {
            assert!((step(length, 7.0) - expected).abs() < 1e-12, "{length}");
        }
        assert_eq!(shade(0.0), RGBColor(255, 255, 255));
        assert_eq!(shade(f64::NAN), shade(0.0));
        assert_eq!(shade(2.0), RGBColor(8, 48, 107));
    }
}
