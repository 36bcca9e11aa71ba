//! Plots as SVG: lines, with bands around them or without, and bars with intervals. Pure; colours are of the page's style.

use std::fmt::Write as _;

use super::number;

const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 44.0;
/// Height of a bar and what is around it.
const BAR_HEIGHT: f64 = 22.0;
/// Room for the names of bars.
const BAR_LEFT: f64 = 170.0;
const BAR_RIGHT: f64 = 90.0;
/// Colours there are (`c0` and so on in the page's style).
const COLOURS: usize = 10;

/// An axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Axis {
    /// Equal distances are equal differences; it begins at 0.
    Linear,
    /// Equal distances are equal factors.
    Logarithmic,
}

/// A line: points, each with the bounds of a band if it has one.
#[derive(Debug, Clone, Default)]
pub(super) struct Line {
    /// What it is of.
    pub(super) name: String,
    /// Which colour it has: the same target has the same in all plots.
    pub(super) colour: usize,
    /// Where it goes along.
    pub(super) points: Vec<(f64, f64)>,
    /// Upper bound of the band above each point.
    pub(super) upper: Vec<f64>,
}

/// A bar.
#[derive(Debug, Clone)]
pub(super) struct Bar {
    pub(super) name: String,
    pub(super) colour: usize,
    pub(super) value: f64,
    pub(super) interval: (f64, f64),
}

/// Characters that mean something in HTML, by their references.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

/// From values to a stretch of the picture.
struct Scale {
    axis: Axis,
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Scale {
    fn new(axis: Axis, values: impl Iterator<Item = f64> + Clone, from: f64, to: f64) -> Self {
        let is_shown = |value: &f64| value.is_finite() && (axis == Axis::Linear || *value > 0.0);
        let shown = values.filter(is_shown);
        let low = shown.clone().fold(f64::INFINITY, f64::min);
        let high = shown.fold(f64::NEG_INFINITY, f64::max);
        let (low, high) = match axis {
            _ if low > high => (1.0, 10.0),
            Axis::Linear => (low.min(0.0), if high > 0.0 { high * 1.05 } else { 1.0 }),
            Axis::Logarithmic if high / low < 1.5 => (low / 1.5, high * 1.5),
            Axis::Logarithmic => (low, high),
        };
        Self {
            axis,
            low,
            high,
            from,
            to,
        }
    }

    fn place(&self, value: f64) -> f64 {
        let part = match self.axis {
            Axis::Linear => (value - self.low) / (self.high - self.low),
            Axis::Logarithmic => (value.max(self.low) / self.low).ln() / (self.high / self.low).ln(),
        };
        self.from + part.clamp(0.0, 1.0) * (self.to - self.from)
    }

    /// Values that are written at the axis.
    fn marks(&self) -> Vec<f64> {
        match self.axis {
            Axis::Linear => {
                let rough = (self.high - self.low) / 5.0;
                let power = 10_f64.powf(rough.log10().floor());
                let steps = [1.0, 2.0, 5.0, 10.0];
                let step = steps.iter().map(|step| step * power).find(|step| *step >= rough);
                let step = step.unwrap_or(rough);
                let first = (self.low / step).ceil() as i64;
                (first..first + 12)
                    .map(|index| index as f64 * step)
                    .filter(|mark| *mark <= self.high)
                    .collect()
            }
            Axis::Logarithmic => {
                let decades = self.low.log10().floor() as i32..=self.high.log10().ceil() as i32;
                let few = (self.high / self.low).log10() < 2.5;
                let within: &[f64] = if few { &[1.0, 2.0, 5.0] } else { &[1.0] };
                decades
                    .flat_map(|decade| within.iter().map(move |part| part * 10_f64.powi(decade)))
                    .filter(|mark| (self.low..=self.high).contains(mark))
                    .take(16)
                    .collect()
            }
        }
    }
}

/// Lines over two axes with their names; the band reaches from each line to its upper bounds.
pub(super) fn lines(lines: &[Line], x_name: &str, y_name: &str, x_axis: Axis, y_axis: Axis) -> String {
    let xs = lines
        .iter()
        .flat_map(|line| line.points.iter().map(|point| point.0));
    let ys = lines.iter().flat_map(|line| {
        line.points
            .iter()
            .map(|point| point.1)
            .chain(line.upper.iter().copied())
    });
    let x = Scale::new(x_axis, xs, LEFT, WIDTH - RIGHT);
    let y = Scale::new(y_axis, ys, HEIGHT - BOTTOM, TOP);
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{} over {}\">",
        escape(y_name),
        escape(x_name)
    );
    // Writing to a string cannot fail.
    for mark in x.marks() {
        let at = x.place(mark);
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"{}\"/><text class=\"x\" x=\"{at:.1}\" y=\"{}\">{}</text>",
            HEIGHT - BOTTOM,
            HEIGHT - BOTTOM + 16.0,
            plain(mark)
        );
    }
    for mark in y.marks() {
        let at = y.place(mark);
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/><text class=\"y\" x=\"{}\" y=\"{:.1}\">{}</text>",
            WIDTH - RIGHT,
            LEFT - 6.0,
            at + 4.0,
            plain(mark)
        );
    }
    let _ = write!(
        svg,
        "<text class=\"x\" x=\"{}\" y=\"{}\">{}</text><text class=\"x\" transform=\"translate(12 {}) rotate(-90)\">{}</text>",
        f64::midpoint(LEFT, WIDTH - RIGHT),
        HEIGHT - 8.0,
        escape(x_name),
        f64::midpoint(TOP, HEIGHT - BOTTOM),
        escape(y_name)
    );
    for line in lines {
        let place = |point: &(f64, f64)| format!("{:.1},{:.1}", x.place(point.0), y.place(point.1));
        let points: Vec<String> = line.points.iter().map(place).collect();
        let colour = line.colour % COLOURS;
        if line.upper.len() == line.points.len() && !points.is_empty() {
            let upper = line.points.iter().zip(&line.upper).rev();
            let upper: Vec<String> = upper.map(|(point, upper)| place(&(point.0, *upper))).collect();
            let _ = write!(
                svg,
                "<polygon class=\"band f{colour}\" points=\"{} {}\"/>",
                points.join(" "),
                upper.join(" ")
            );
        }
        let _ = write!(
            svg,
            "<polyline class=\"line s{colour}\" points=\"{}\"><title>{}</title></polyline>",
            points.join(" "),
            escape(&line.name)
        );
        if line.points.len() <= 12 {
            for (point, at) in line.points.iter().zip(&points) {
                let (cx, cy) = at.split_once(',').unwrap_or_default();
                let _ = write!(
                    svg,
                    "<circle class=\"f{colour}\" cx=\"{cx}\" cy=\"{cy}\" r=\"3\"><title>{}: {} at {}</title></circle>",
                    escape(&line.name),
                    number(point.1),
                    number(point.0)
                );
            }
        }
    }
    svg.push_str("</svg>");
    format!(
        "{svg}{}",
        legend(lines.iter().map(|line| (line.name.as_str(), line.colour)))
    )
}

/// Bars that lie, each with its name, its value and the interval of that.
pub(super) fn bars(bars: &[Bar], axis_name: &str, axis: Axis) -> String {
    let height = bars.len() as f64 * BAR_HEIGHT + 40.0;
    let values = bars
        .iter()
        .flat_map(|bar| [bar.value, bar.interval.0, bar.interval.1]);
    let scale = Scale::new(axis, values, BAR_LEFT, WIDTH - BAR_RIGHT);
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{}\">",
        escape(axis_name)
    );
    for mark in scale.marks() {
        let at = scale.place(mark);
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"0\" y2=\"{}\"/><text class=\"x\" x=\"{at:.1}\" y=\"{}\">{}</text>",
            height - 38.0,
            height - 22.0,
            plain(mark)
        );
    }
    let _ = write!(
        svg,
        "<text class=\"x\" x=\"{}\" y=\"{}\">{}</text>",
        f64::midpoint(BAR_LEFT, WIDTH - BAR_RIGHT),
        height - 6.0,
        escape(axis_name)
    );
    for (index, bar) in bars.iter().enumerate() {
        let top = index as f64 * BAR_HEIGHT + 3.0;
        let middle = top + (BAR_HEIGHT - 6.0) / 2.0;
        let end = scale.place(bar.value);
        let (low, high) = (scale.place(bar.interval.0), scale.place(bar.interval.1));
        let _ = write!(
            svg,
            "<text class=\"y\" x=\"{}\" y=\"{:.1}\">{}</text><rect class=\"f{}\" x=\"{BAR_LEFT}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{}\"/>\
             <line class=\"interval\" x1=\"{low:.1}\" x2=\"{high:.1}\" y1=\"{middle:.1}\" y2=\"{middle:.1}\"/>\
             <line class=\"interval\" x1=\"{low:.1}\" x2=\"{low:.1}\" y1=\"{:.1}\" y2=\"{:.1}\"/>\
             <line class=\"interval\" x1=\"{high:.1}\" x2=\"{high:.1}\" y1=\"{:.1}\" y2=\"{:.1}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            BAR_LEFT - 6.0,
            middle + 4.0,
            escape(&bar.name),
            bar.colour % COLOURS,
            (end - BAR_LEFT).max(1.0),
            BAR_HEIGHT - 6.0,
            middle - 4.0,
            middle + 4.0,
            middle - 4.0,
            middle + 4.0,
            end.max(high) + 6.0,
            middle + 4.0,
            number(bar.value)
        );
    }
    svg.push_str("</svg>");
    svg
}

/// A mark's number: no more digits than it needs.
fn plain(mark: f64) -> String {
    let text = format!("{mark:.6}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text.is_empty() || text == "-" {
        "0".to_owned()
    } else {
        text.to_owned()
    }
}

fn legend<'a>(names: impl Iterator<Item = (&'a str, usize)>) -> String {
    let mut text = "<p class=\"legend\">".to_owned();
    for (name, colour) in names {
        let _ = write!(
            text,
            "<span><i class=\"b{}\"></i>{}</span> ",
            colour % COLOURS,
            escape(name)
        );
    }
    text + "</p>"
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Every number in the attributes that place something.
    fn coordinates(svg: &str) -> Vec<f64> {
        let attributes = ["x1", "x2", "y1", "y2", "x", "y", "cx", "cy"];
        let mut found = Vec::new();
        for attribute in attributes {
            for part in svg.split(&format!(" {attribute}=\"")).skip(1) {
                let text = part.split('"').next().unwrap_or_default();
                found.push(text.parse().unwrap_or_else(|_| panic!("{attribute}={text}")));
            }
        }
        for part in svg.split("points=\"").skip(1) {
            let text = part.split('"').next().unwrap_or_default();
            let numbers = text.split([' ', ',']).filter(|number| !number.is_empty());
            found.extend(numbers.map(|number| number.parse::<f64>().unwrap_or_else(|_| panic!("{number}"))));
        }
        found
    }

    #[test]
    fn nothing_in_a_name_becomes_markup() {
        let bar = Bar {
            name: "<script>\"&'".into(),
            colour: 0,
            value: 1.0,
            interval: (0.5, 2.0),
        };
        let svg = bars(&[bar], "a<b", Axis::Linear);
        assert!(
            !svg.contains("<script") && svg.contains("&lt;script&gt;&quot;&amp;&#39;"),
            "{svg}"
        );
    }

    proptest! {
        #[test]
        fn whatever_is_plotted_lies_within_the_picture(
            points in prop::collection::vec((0.0_f64..1e9, 0.0_f64..1e9), 0..30),
            logarithmic in any::<bool>(),
        ) {
            let axis = if logarithmic { Axis::Logarithmic } else { Axis::Linear };
            let upper = points.iter().map(|point| point.1 * 2.0).collect();
            let line = Line { name: "a".into(), colour: 1, points: points.clone(), upper };
            let svg = lines(&[line, Line::default()], "x", "y", axis, axis);
            for value in coordinates(&svg) {
                prop_assert!((0.0..=WIDTH).contains(&value), "{}", value);
            }
            let all: Vec<Bar> = points.iter().map(|(a, b)| Bar {
                name: "a".into(), colour: 3, value: *a, interval: (a.min(*b), a.max(*b)),
            }).collect();
            let height = all.len() as f64 * BAR_HEIGHT + 40.0;
            for value in coordinates(&bars(&all, "x", axis)) {
                prop_assert!((0.0..=height.max(WIDTH)).contains(&value), "{}", value);
            }
        }
    }
}
