//! A coordinate system with labelled axes, ticks and grid lines: one look for all charts.

use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;

use super::canvas::{Area, DrawingError, FONT, TextPen, drawing, rectangle};
use super::colours::{AXIS, GRID};

/// Numbers to the right and numbers upwards.
pub(crate) type Plane<'a, B> = ChartContext<'a, B, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

/// One of the two axes.
pub(crate) struct Axis<'a> {
    pub(crate) label: &'a str,
    /// Both ends.
    pub(crate) range: (f64, f64),
    /// At most as many ticks, about.
    pub(crate) ticks: usize,
    pub(crate) format: &'a dyn Fn(f64) -> String,
}

/// Draws the axes; an empty caption takes no room.
pub(crate) fn plane<'a, B: DrawingBackend + 'a>(
    area: &Area<B>,
    caption: &str,
    x: &Axis<'_>,
    y: &Axis<'_>,
) -> Result<Plane<'a, B>, DrawingError> {
    let mut builder = ChartBuilder::on(area);
    if !caption.is_empty() {
        builder.caption(caption, (FONT, 15));
    }
    let mut plane = builder
        .margin(12)
        .x_label_area_size(42)
        .y_label_area_size(66)
        .build_cartesian_2d(x.range.0..x.range.1, y.range.0..y.range.1)
        .map_err(drawing)?;
    plane
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID)
        .axis_style(AXIS)
        .label_style((FONT, 12))
        .axis_desc_style((FONT, 13))
        .x_labels(x.ticks)
        .y_labels(y.ticks)
        .x_desc(x.label)
        .y_desc(y.label)
        .x_label_formatter(&|value| (x.format)(*value))
        .y_label_formatter(&|value| (y.format)(*value))
        .draw()
        .map_err(drawing)?;
    Ok(plane)
}

/// A vertical bar with the colours of a scale, from `low` at its lower end to `high`.
pub(crate) struct ColourBar<'a> {
    pub(crate) label: &'a str,
    pub(crate) low: f64,
    pub(crate) high: f64,
    /// The colour at a share of the way from `low` to `high`.
    pub(crate) colour: &'a dyn Fn(f64) -> RGBColor,
}

impl ColourBar<'_> {
    /// Pixels from the bar's left edge to the end of its numbers.
    pub(crate) const WIDTH: i32 = 90;

    pub(crate) fn draw<B: DrawingBackend>(
        &self,
        area: &Area<B>,
        (x, y): (i32, i32),
        height: i32,
    ) -> Result<(), DrawingError> {
        TextPen::new(12).write(area, (x, y - 20), self.label)?;
        for below in 0..height {
            let share = 1.0 - f64::from(below) / f64::from(height - 1);
            rectangle(area, (x, y + below), (14, 1), (self.colour)(share))?;
        }
        frame(area, (x, y), (14, height))?;
        let digits = decimals(self.high - self.low).max(1);
        for share in [0.0, 0.5, 1.0] {
            let value = self.low + share * (self.high - self.low);
            let at = (x + 20, y + (f64::from(height) * (1.0 - share)) as i32 - 6);
            TextPen::new(11).write(area, at, &fixed(value, digits))?;
        }
        Ok(())
    }
}

/// Paints a thin frame around a rectangle.
pub(crate) fn frame<B: DrawingBackend>(
    area: &Area<B>,
    (x, y): (i32, i32),
    (width, height): (i32, i32),
) -> Result<(), DrawingError> {
    let corners = [(x, y), (x + width, y + height)];
    area.draw(&Rectangle::new(corners, AXIS.stroke_width(1)))
        .map_err(drawing)
}

/// Paints a square of a colour with its meaning at its right.
pub(crate) fn swatch<B: DrawingBackend>(
    area: &Area<B>,
    (x, y): (i32, i32),
    colour: RGBColor,
    meaning: &str,
) -> Result<(), DrawingError> {
    rectangle(area, (x, y + 1), (10, 10), colour)?;
    frame(area, (x, y + 1), (10, 10))?;
    TextPen::new(12).write(area, (x + 16, y), meaning)
}

/// Digits behind the point that distinguish the ticks of an axis of this length.
pub(crate) fn decimals(length: f64) -> usize {
    if length > 0.0 {
        ((2.0 - length.log10()).ceil().max(0.0) as usize).min(8)
    } else {
        0
    }
}

/// A number with this many digits behind the point, never `-0`.
pub(crate) fn fixed(value: f64, digits: usize) -> String {
    let power = 10f64.powi(digits as i32);
    let rounded = (value * power).round() / power;
    // Adding 0 turns −0 into 0.
    format!("{:.digits$}", rounded + 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_have_the_digits_that_distinguish_them() {
        let cases = [
            (1.0, 2),
            (0.9, 3),
            (250.0, 0),
            (1e-3, 5),
            (1e-12, 8),
            (0.0, 0),
        ];
        for (length, digits) in cases {
            assert_eq!(decimals(length), digits, "{length}");
        }
    }

    #[test]
    fn nothing_is_minus_zero() {
        assert_eq!(fixed(-1e-9, 2), "0.00");
        assert_eq!(fixed(-0.126, 2), "-0.13");
    }
}
