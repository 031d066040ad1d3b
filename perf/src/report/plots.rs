//! Plots of a group: ratio against number of services, latencies by rarity, cost of programs and CPU time.

use anyhow::{Result, anyhow};
use plotters::prelude::*;
use plotters::style::{RGBColor, text_anchor};

use super::Report;
use crate::results::{Outcome, Unit};

const SIZE: (u32, u32) = (560, 340);

/// Colours that most people tell from each other (Okabe and Ito), for lanes without one of their own.
const COLOURS: [RGBColor; 6] = [
    RGBColor(86, 180, 233),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(230, 159, 0),
];

/// The colour of a lane: of known ones always the same, of others by `index`.
fn colour(lane: &str, index: usize) -> RGBColor {
    match lane {
        "beeline" => RGBColor(230, 159, 0),
        "beeline-xdp" => RGBColor(213, 94, 0),
        "iptables" => RGBColor(0, 114, 178),
        "nftables" => RGBColor(0, 158, 115),
        "conntrack" => RGBColor(204, 121, 167),
        "none" | "direct" => RGBColor(90, 90, 90),
        _ => COLOURS[index % COLOURS.len()],
    }
}

/// A line: name, lane, points.
type Series = (String, String, Vec<(f64, f64)>);

/// All plots of a group that its results allow.
pub(super) fn of_group(report: &Report, group: &str) -> Result<Vec<String>> {
    let outcomes: Vec<_> = report
        .outcomes
        .iter()
        .filter(|outcome| outcome.group == group && outcome.skipped.is_none())
        .collect();
    let mut tests: Vec<&str> = Vec::new();
    for outcome in &outcomes {
        if !tests.contains(&outcome.test.as_str()) {
            tests.push(&outcome.test);
        }
    }
    let mut drawn = Vec::new();
    for test in tests {
        let of_test: Vec<_> = outcomes.iter().copied().filter(|outcome| outcome.test == test).collect();
        drawn.extend(scale(group, test, &of_test)?);
        drawn.extend(latencies(group, test, &of_test)?);
    }
    drawn.extend(bars(&format!("{group}: nanoseconds a run"), &nanoseconds(&outcomes))?);
    drawn.extend(bars(&format!("{group}: CPU time of the client, us an operation"), &cpu(&outcomes))?);
    Ok(drawn)
}

/// Ratio against number of services, where there are several numbers.
fn scale(group: &str, test: &str, outcomes: &[&Outcome]) -> Result<Option<String>> {
    let mut series: Vec<Series> = Vec::new();
    for outcome in outcomes.iter().filter(|outcome| matches!(outcome.unit, Unit::Ratio | Unit::Seconds)) {
        let Some(services) = outcome.services else { continue };
        let point = ((services as f64).log10(), outcome.estimate.value);
        match series.iter_mut().find(|(name, ..)| *name == outcome.lane) {
            Some((.., points)) => points.push(point),
            None => series.push((outcome.lane.clone(), outcome.lane.clone(), vec![point])),
        }
    }
    if series.iter().all(|(.., points)| points.len() < 2) {
        return Ok(None);
    }
    let unit = outcomes.first().map_or(Unit::Ratio, |outcome| outcome.unit);
    let what = if unit == Unit::Ratio { "rate / rate of plain routing" } else { "seconds" };
    let axes = Axes {
        title: format!("{group}: {test}"),
        x: "services",
        y: what,
        powers: true,
        log_y: unit == Unit::Seconds,
    };
    lines(&axes, &series).map(Some)
}

/// Latency against rarity: 1 is the median's side of 90 %, 2 is 99 %, 3 is 99.9 %.
fn latencies(group: &str, test: &str, outcomes: &[&Outcome]) -> Result<Option<String>> {
    let curve = |detail: &serde_json::Value| -> Vec<(f64, f64)> {
        let points = detail["latency"]["curve"].as_array().into_iter().flatten();
        points
            .filter_map(|point| Some((point[0].as_f64()?, point[1].as_f64()?)))
            .filter(|(quantile, us)| *quantile < 1.0 && *us > 0.0)
            .map(|(quantile, us)| (-(1.0 - quantile).log10(), us))
            .collect()
    };
    let mut series: Vec<Series> = Vec::new();
    for outcome in outcomes {
        let services = outcome.services.map(|services| format!(" {services}")).unwrap_or_default();
        let target =
            if outcome.detail["target"].is_null() { &outcome.detail } else { &outcome.detail["target"] };
        series.push((format!("{}{services}", outcome.lane), outcome.lane.clone(), curve(target)));
    }
    let reference = outcomes.first().and_then(|outcome| {
        Some((outcome.reference.clone()?, outcome.reference.clone()?, curve(&outcome.detail["reference"])))
    });
    series.extend(reference);
    series.retain(|(.., points)| points.len() > 1);
    if series.is_empty() {
        return Ok(None);
    }
    let axes = Axes {
        title: format!("{group}: {test}, latency"),
        x: "rarity: 1 is 90 %, 2 is 99 %, 3 is 99.9 %",
        y: "microseconds",
        powers: false,
        log_y: true,
    };
    lines(&axes, &series).map(Some)
}

struct Axes {
    title: String,
    x: &'static str,
    y: &'static str,
    /// The x axis holds powers of ten.
    powers: bool,
    log_y: bool,
}

/// The least and the greatest.
fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)))
}

fn lines(axes: &Axes, series: &[Series]) -> Result<String> {
    // A logarithmic axis is a linear one of logarithms: its labels are powers.
    let on_y = |value: f64| if axes.log_y { value.max(1e-9).log10() } else { value };
    let points = || series.iter().flat_map(|(.., points)| points.iter().copied());
    let (left, right) = range(points().map(|(x, _)| x));
    let (low, high) = range(points().map(|(_, y)| on_y(y)));
    let bottom = if axes.log_y { low - 0.1 } else { 0.0 };
    let mut text = String::new();
    {
        let area = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
        area.fill(&WHITE).map_err(|error| anyhow!("{error}"))?;
        let mut chart = ChartBuilder::on(&area)
            .caption(&axes.title, ("sans-serif", 15))
            .margin(8)
            .x_label_area_size(34)
            .y_label_area_size(56)
            .build_cartesian_2d(
                left..right.max(left + 0.1),
                bottom..(high + (high - bottom) * 0.08).max(bottom + 0.1),
            )
            .map_err(|error| anyhow!("{error}"))?;
        let x_label =
            |x: &f64| if axes.powers { format!("{:.0}", 10_f64.powf(*x)) } else { format!("{x:.1}") };
        let y_label = |y: &f64| if axes.log_y { short(10_f64.powf(*y)) } else { format!("{y:.2}") };
        chart
            .configure_mesh()
            .light_line_style(WHITE)
            .x_desc(axes.x)
            .y_desc(axes.y)
            .x_label_formatter(&x_label)
            .y_label_formatter(&y_label)
            .draw()
            .map_err(|error| anyhow!("{error}"))?;
        for (index, (name, lane, points)) in series.iter().enumerate() {
            let style = colour(lane, index).stroke_width(2);
            let points = points.iter().map(|(x, y)| (*x, on_y(*y)));
            chart
                .draw_series(LineSeries::new(points, style))
                .map_err(|error| anyhow!("{error}"))?
                .label(name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 14, y)], style));
        }
        chart
            .configure_series_labels()
            .background_style(WHITE.mix(0.8))
            .border_style(RGBColor(200, 200, 200))
            .position(if axes.log_y {
                SeriesLabelPosition::UpperLeft
            } else {
                SeriesLabelPosition::LowerLeft
            })
            .draw()
            .map_err(|error| anyhow!("{error}"))?;
        area.present().map_err(|error| anyhow!("{error}"))?;
    }
    Ok(text)
}

/// A number with two or three digits that count.
fn short(value: f64) -> String {
    match value {
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 1.0 => format!("{v:.1}"),
        v => format!("{v:.4}"),
    }
}

/// A bar: name, lane, value.
type Bar = (String, String, f64);

fn nanoseconds(outcomes: &[&Outcome]) -> Vec<Bar> {
    let of_unit = outcomes.iter().filter(|outcome| outcome.unit == Unit::Nanoseconds);
    of_unit
        .map(|outcome| {
            let mark = if outcome.published.is_some() { " †" } else { "" };
            (
                format!("{} - {}{mark}", outcome.test, outcome.lane),
                outcome.lane.clone(),
                outcome.estimate.value,
            )
        })
        .collect()
}

fn cpu(outcomes: &[&Outcome]) -> Vec<Bar> {
    let with = outcomes.iter().filter_map(|outcome| {
        let time = outcome.detail["target"]["cpu_us"].as_f64()?;
        let services = outcome.services.map(|services| format!(" {services}")).unwrap_or_default();
        Some((format!("{} - {}{services}", outcome.test, outcome.lane), outcome.lane.clone(), time))
    });
    with.collect()
}

fn bars(title: &str, bars: &[Bar]) -> Result<Option<String>> {
    if bars.is_empty() {
        return Ok(None);
    }
    let (width, label, row) = (760, 380, 18);
    let height = 40 + row * bars.len() as i32;
    let most = bars.iter().map(|(.., value)| *value).fold(1e-9, f64::max);
    let mut text = String::new();
    {
        let area = SVGBackend::with_string(&mut text, (width, height as u32)).into_drawing_area();
        area.fill(&WHITE).map_err(|error| anyhow!("{error}"))?;
        let say = |text: &str, at: (i32, i32), size: i32, right: bool| {
            let side = if right { text_anchor::HPos::Right } else { text_anchor::HPos::Left };
            let style = ("sans-serif", size).into_font().color(&BLACK);
            area.draw(&Text::new(
                text.to_owned(),
                at,
                style.pos(text_anchor::Pos::new(side, text_anchor::VPos::Center)),
            ))
            .map_err(|error| anyhow!("{error}"))
        };
        say(title, (10, 16), 15, false)?;
        for (index, (name, lane, value)) in bars.iter().enumerate() {
            let y = 40 + row * index as i32;
            say(name, (label - 8, y), 12, true)?;
            let end = label + ((f64::from(width as i32 - label - 70)) * value / most) as i32;
            area.draw(&Rectangle::new(
                [(label, y - 6), (end.max(label + 1), y + 6)],
                colour(lane, 0).filled(),
            ))
            .map_err(|error| anyhow!("{error}"))?;
            say(&short(*value), (end + 6, y), 12, false)?;
        }
        area.present().map_err(|error| anyhow!("{error}"))?;
    }
    Ok(Some(text))
}
