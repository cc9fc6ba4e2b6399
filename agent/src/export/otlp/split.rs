//! Requests beyond the receiver's bound become several.

use opentelemetry_proto::tonic::{
    collector::{
        logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest,
        trace::v1::ExportTraceServiceRequest,
    },
    logs::v1::{ResourceLogs, ScopeLogs},
    metrics::v1::{self, Metric, ResourceMetrics, ScopeMetrics, metric::Data},
    trace::v1::{ResourceSpans, ScopeSpans},
};
use prost::Message;

/// Requests of at most `max` bytes with all that is in `request`, in its order. A single element that is larger goes alone.
pub(super) fn split<T: Divisible>(request: T, max: usize) -> Vec<T> {
    let mut ready = Vec::new();
    let mut pending = vec![request];
    while let Some(mut request) = pending.pop() {
        let second = if request.encoded_len() <= max { None } else { request.second_half() };
        match second {
            Some(second) => pending.extend([second, request]),
            None => ready.push(request),
        }
    }
    ready
}

/// Number of log records.
pub(super) fn log_records(request: &ExportLogsServiceRequest) -> u64 {
    let scopes = request.resource_logs.iter().flat_map(|resource| &resource.scope_logs);
    scopes.map(|scope| scope.log_records.len()).sum::<usize>() as u64
}

/// Number of spans.
pub(super) fn spans(request: &ExportTraceServiceRequest) -> u64 {
    let scopes = request.resource_spans.iter().flat_map(|resource| &resource.scope_spans);
    scopes.map(|scope| scope.spans.len()).sum::<usize>() as u64
}

/// Number of data points.
pub(super) fn points(request: &ExportMetricsServiceRequest) -> u64 {
    let scopes = request.resource_metrics.iter().flat_map(|resource| &resource.scope_metrics);
    let points = scopes.flat_map(|scope| &scope.metrics).map(|metric| match &metric.data {
        Some(Data::Gauge(data)) => data.data_points.len(),
        Some(Data::Sum(data)) => data.data_points.len(),
        Some(Data::Histogram(data)) => data.data_points.len(),
        Some(Data::ExponentialHistogram(data)) => data.data_points.len(),
        Some(Data::Summary(data)) => data.data_points.len(),
        None => 0,
    });
    points.sum::<usize>() as u64
}

/// A request that can be cut in two.
pub(super) trait Divisible: Message + Sized {
    /// The second half, cut off at the coarsest level that has more than one element; `None` if there is none.
    fn second_half(&mut self) -> Option<Self>;
}

impl Divisible for ExportMetricsServiceRequest {
    fn second_half(&mut self) -> Option<Self> {
        halve(&mut self.resource_metrics, |resource| {
            let scope_metrics = halve(&mut resource.scope_metrics, |scope| {
                let metrics = halve(&mut scope.metrics, halve_metric)?;
                Some(ScopeMetrics { scope: scope.scope.clone(), metrics, schema_url: scope.schema_url.clone() })
            })?;
            let (of, schema_url) = (resource.resource.clone(), resource.schema_url.clone());
            Some(ResourceMetrics { resource: of, scope_metrics, schema_url })
        })
        .map(|resource_metrics| ExportMetricsServiceRequest { resource_metrics })
    }
}

impl Divisible for ExportLogsServiceRequest {
    fn second_half(&mut self) -> Option<Self> {
        halve(&mut self.resource_logs, |resource| {
            let scope_logs = halve(&mut resource.scope_logs, |scope| {
                let log_records = halve(&mut scope.log_records, |_| None)?;
                Some(ScopeLogs { scope: scope.scope.clone(), log_records, schema_url: scope.schema_url.clone() })
            })?;
            let (of, schema_url) = (resource.resource.clone(), resource.schema_url.clone());
            Some(ResourceLogs { resource: of, scope_logs, schema_url })
        })
        .map(|resource_logs| ExportLogsServiceRequest { resource_logs })
    }
}

impl Divisible for ExportTraceServiceRequest {
    fn second_half(&mut self) -> Option<Self> {
        halve(&mut self.resource_spans, |resource| {
            let scope_spans = halve(&mut resource.scope_spans, |scope| {
                let spans = halve(&mut scope.spans, |_| None)?;
                Some(ScopeSpans { scope: scope.scope.clone(), spans, schema_url: scope.schema_url.clone() })
            })?;
            let (of, schema_url) = (resource.resource.clone(), resource.schema_url.clone());
            Some(ResourceSpans { resource: of, scope_spans, schema_url })
        })
        .map(|resource_spans| ExportTraceServiceRequest { resource_spans })
    }
}

/// The second half of `elements`; of a single one, that which `within` cuts off of it.
fn halve<T>(elements: &mut Vec<T>, within: impl FnOnce(&mut T) -> Option<T>) -> Option<Vec<T>> {
    match second_half(elements) {
        Some(second) => Some(second),
        None => elements.first_mut().and_then(within).map(|second| vec![second]),
    }
}

fn halve_metric(metric: &mut Metric) -> Option<Metric> {
    let data = match metric.data.as_mut()? {
        Data::Gauge(data) => {
            let data_points = second_half(&mut data.data_points)?;
            Data::Gauge(v1::Gauge { data_points })
        }
        Data::Sum(data) => {
            let data_points = second_half(&mut data.data_points)?;
            Data::Sum(v1::Sum { data_points, ..*data })
        }
        Data::ExponentialHistogram(data) => {
            let data_points = second_half(&mut data.data_points)?;
            let aggregation_temporality = data.aggregation_temporality;
            Data::ExponentialHistogram(v1::ExponentialHistogram { data_points, aggregation_temporality })
        }
        // The agent makes none of these.
        Data::Histogram(_) | Data::Summary(_) => return None,
    };
    Some(Metric {
        name: metric.name.clone(),
        description: metric.description.clone(),
        unit: metric.unit.clone(),
        metadata: metric.metadata.clone(),
        data: Some(data),
    })
}

fn second_half<T>(elements: &mut Vec<T>) -> Option<Vec<T>> {
    (elements.len() > 1).then(|| elements.split_off(elements.len() / 2))
}
