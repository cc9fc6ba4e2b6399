//! The two text formats: Prometheus text format 0.0.4 and OpenMetrics 1.0.
//!
//! Names follow the OpenTelemetry specification, "Prometheus and OpenMetrics Compatibility" §Metric Metadata.

use std::{
    fmt::{self, Write},
    time::Duration,
};

use crate::{
    export::attributes::Value,
    model::names::{Instrument, Metric},
};

/// A format that Prometheus reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text format 0.0.4.
    Text,
    /// OpenMetrics text format 1.0.
    OpenMetrics,
}

impl Format {
    /// The format that an `Accept` header prefers (RFC 9110 §12.5.1). Text where it names neither: Prometheus reads it whatever it asked for.
    pub fn negotiate(accept: &str) -> Format {
        let (mut text, mut openmetrics) = (0.0, 0.0);
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default().to_ascii_lowercase();
            let (mut quality, mut version) = (1.0f32, None);
            for (name, value) in parts.filter_map(|parameter| parameter.split_once('=')) {
                match name.trim().to_ascii_lowercase().as_str() {
                    "q" => quality = value.trim().parse().unwrap_or(0.0),
                    "version" => version = Some(value.trim().trim_matches('"')),
                    _ => {}
                }
            }
            match media.as_str() {
                "application/openmetrics-text" if version.is_none_or(|version| version == "1.0.0") => {
                    openmetrics = quality.max(openmetrics);
                }
                "text/plain" | "text/*" | "*/*" if version.is_none_or(|version| version == "0.0.4") => {
                    text = quality.max(text);
                }
                _ => {}
            }
        }
        if openmetrics > 0.0 && openmetrics >= text { Format::OpenMetrics } else { Format::Text }
    }

    /// The `Content-Type` of the answer.
    pub fn content_type(self) -> &'static str {
        match self {
            Format::Text => "text/plain; version=0.0.4; charset=utf-8",
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Labels of a series, as they are written between the braces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Labels(String);

impl Labels {
    /// These and `more`.
    pub(super) fn with(&self, more: &[(&'static str, Value<'_>)]) -> Labels {
        let mut labels = self.clone();
        for (name, value) in more {
            if !labels.0.is_empty() {
                labels.0.push(',');
            }
            push_name(&mut labels.0, name);
            labels.0.push_str("=\"");
            match value {
                Value::Text(text) => escape(&mut labels.0, text, true),
                Value::Number(number) => labels.push(*number),
                Value::Float(number) => labels.push(*number),
                Value::Flag(flag) => labels.push(*flag),
            }
            labels.0.push('"');
        }
        labels
    }

    fn push(&mut self, value: impl fmt::Display) {
        push(&mut self.0, format_args!("{value}"));
    }
}

/// Appends to a text, which cannot fail.
fn push(out: &mut String, arguments: fmt::Arguments<'_>) {
    let written = out.write_fmt(arguments);
    debug_assert!(written.is_ok());
}

/// An OpenTelemetry name as a Prometheus one: dots become underscores. The catalogue has no other character that is not allowed.
fn push_name(out: &mut String, name: &str) {
    out.extend(name.chars().map(|c| if c == '.' { '_' } else { c }));
}

/// Escapes backslash, line feed and, with `quotes`, the double quote. Other control characters cannot be escaped in these formats and some
/// readers stop at them (NUL ends the input of Prometheus' lexer), so they are replaced.
fn escape(out: &mut String, text: &str, quotes: bool) {
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '"' if quotes => out.push_str("\\\""),
            '\t' => out.push('\t'),
            c if c.is_control() => out.push(char::REPLACEMENT_CHARACTER),
            c => out.push(c),
        }
    }
}

/// A number as Go writes it (`%g` with the least digits), so that `le` is the same text whether Prometheus normalises it (3.x) or not.
fn push_float(out: &mut String, number: f64) {
    if number != 0.0 && !(1e-4..1e21).contains(&number.abs()) {
        let text = format!("{number:e}");
        // Go pads the exponent to two digits.
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, digits) = match exponent.strip_prefix('-') {
            Some(digits) => ('-', digits),
            None => ('+', exponent),
        };
        push(out, format_args!("{mantissa}e{sign}{digits:0>2}"));
    } else {
        push(out, format_args!("{number:?}"));
    }
}

/// The value of a sample.
#[derive(Clone, Copy, Debug)]
pub(super) enum Number {
    Whole(u64),
    Float(f64),
}

impl From<u64> for Number {
    fn from(number: u64) -> Number {
        Number::Whole(number)
    }
}

impl From<f64> for Number {
    fn from(number: f64) -> Number {
        Number::Float(number)
    }
}

/// Writes families of metrics.
#[derive(Debug)]
pub(super) struct Writer {
    out: String,
    format: Format,
}

impl Writer {
    pub(super) fn new(format: Format) -> Writer {
        Writer { out: String::new(), format }
    }

    /// Begins a family; nothing is written before its first sample.
    pub(super) fn family(&mut self, metric: &'static Metric) -> Family<'_> {
        let mut name = String::new();
        push_name(&mut name, metric.name);
        let unit = unit(metric.unit);
        if let Some(unit) = unit {
            push(&mut name, format_args!("_{unit}"));
        }
        Family { writer: self, metric, name, unit, begun: false }
    }

    /// The whole text.
    pub(super) fn finish(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.out.push_str("# EOF\n");
        }
        self.out
    }
}

/// Unit words by UCUM code. Annotations such as `{row}` have none.
fn unit(ucum: &str) -> Option<&'static str> {
    match ucum {
        "s" => Some("seconds"),
        "By" => Some("bytes"),
        "ms" => Some("milliseconds"),
        "ns" => Some("nanoseconds"),
        _ => None,
    }
}

/// All samples of a metric; neither format allows them to be scattered.
#[derive(Debug)]
pub(super) struct Family<'a> {
    writer: &'a mut Writer,
    metric: &'static Metric,
    /// Name with unit, without the suffix of the instrument.
    name: String,
    unit: Option<&'static str>,
    begun: bool,
}

impl Family<'_> {
    /// The suffix of the samples' name.
    fn suffix(&self) -> &'static str {
        match self.metric.instrument {
            Instrument::Counter => "_total",
            Instrument::Info => "_info",
            Instrument::UpDownCounter | Instrument::Gauge | Instrument::Histogram => "",
        }
    }

    fn begin(&mut self) {
        if std::mem::replace(&mut self.begun, true) {
            return;
        }
        let openmetrics = self.writer.format == Format::OpenMetrics;
        // OpenMetrics names the family without the suffix, the older format has no families but names.
        let name = format!("{}{}", self.name, if openmetrics { "" } else { self.suffix() });
        let kind = match self.metric.instrument {
            Instrument::Counter => "counter",
            Instrument::Histogram => "histogram",
            Instrument::Info if openmetrics => "info",
            Instrument::UpDownCounter | Instrument::Gauge | Instrument::Info => "gauge",
        };
        let out = &mut self.writer.out;
        push(out, format_args!("# HELP {name} "));
        escape(out, self.metric.description, openmetrics);
        push(out, format_args!(".\n# TYPE {name} {kind}\n"));
        if let (true, Some(unit)) = (openmetrics, self.unit) {
            push(out, format_args!("# UNIT {name} {unit}\n"));
        }
    }

    /// One sample.
    pub(super) fn sample(&mut self, labels: &Labels, value: impl Into<Number>) {
        self.line(self.suffix(), labels, value.into());
    }

    /// One sample, if there is anything to count.
    pub(super) fn sample_unless_zero(&mut self, labels: &Labels, value: u64) {
        if value > 0 {
            self.sample(labels, value);
        }
    }

    /// A histogram with cumulative counts up to each bound.
    pub(super) fn histogram(&mut self, labels: &Labels, bounds: &[(f64, u64)], count: u64, sum: Duration) {
        let mut with_bound = labels.clone();
        if !with_bound.0.is_empty() {
            with_bound.0.push(',');
        }
        with_bound.0.push_str("le=\"");
        let plain = with_bound.0.len();
        for (bound, below) in bounds {
            with_bound.0.truncate(plain);
            push_float(&mut with_bound.0, *bound);
            with_bound.0.push('"');
            self.line("_bucket", &with_bound, Number::Whole(*below));
        }
        with_bound.0.truncate(plain);
        with_bound.0.push_str("+Inf\"");
        self.line("_bucket", &with_bound, Number::Whole(count));
        self.line("_sum", labels, Number::Float(sum.as_secs_f64()));
        self.line("_count", labels, Number::Whole(count));
    }

    fn line(&mut self, suffix: &str, labels: &Labels, value: Number) {
        self.begin();
        let out = &mut self.writer.out;
        out.push_str(&self.name);
        out.push_str(suffix);
        if !labels.0.is_empty() {
            out.push('{');
            out.push_str(&labels.0);
            out.push('}');
        }
        out.push(' ');
        match value {
            Number::Whole(number) => push(out, format_args!("{number}")),
            Number::Float(number) => push_float(out, number),
        }
        out.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_of_what_is_accepted() {
        use Format::{OpenMetrics, Text};
        let prometheus_2 = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        let prometheus_3 = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for (accept, expected) in [
            (prometheus_2, OpenMetrics),
            (prometheus_3, OpenMetrics),
            ("", Text),
            ("*/*", Text),
            ("text/html,application/xhtml+xml;q=0.9", Text),
            ("application/openmetrics-text", OpenMetrics),
            ("application/openmetrics-text;version=0.0.1", Text),
            ("application/openmetrics-text;q=0.2,text/plain;q=0.9", Text),
            ("application/openmetrics-text;q=0", Text),
            ("APPLICATION/OpenMetrics-Text; Version=\"1.0.0\" ; Q=1", OpenMetrics),
            (";;,=,q=;", Text),
        ] {
            assert_eq!(Format::negotiate(accept), expected, "{accept}");
        }
    }

    #[test]
    fn floats_are_written_as_go_writes_them() {
        for (number, expected) in [
            (1.0, "1.0"),
            (32.0, "32.0"),
            (0.5, "0.5"),
            (0.0009765625, "0.0009765625"),
            (0.00006103515625, "6.103515625e-05"),
            (1.52587890625e-5, "1.52587890625e-05"),
            (0.0, "0.0"),
            (1e21, "1e+21"),
            (1e-10, "1e-10"),
        ] {
            let mut out = String::new();
            push_float(&mut out, number);
            assert_eq!(out, expected);
        }
    }
}
