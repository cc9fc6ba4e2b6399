//! Requests beyond the receiver's bound become several.

use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    metrics::v1::{self, Metric, ResourceMetrics, ScopeMetrics, metric::Data},
};
use prost::Message;

/// Requests of at most `max` bytes with all points of `request`, in their order. A single point that is larger goes alone.
pub(super) fn split(request: ExportMetricsServiceRequest, max: usize) -> Vec<ExportMetricsServiceRequest> {
    let mut ready = Vec::new();
    let mut pending = vec![request];
    while let Some(request) = pending.pop() {
        if request.encoded_len() <= max {
            ready.push(request);
            continue;
        }
        match halve(request) {
            Ok([first, second]) => pending.extend([second, first]),
            Err(whole) => ready.push(whole),
        }
    }
    ready
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

/// Two requests in place of one, cut at the coarsest level that has more than one element; the request itself if there is none.
fn halve(
    mut request: ExportMetricsServiceRequest,
) -> Result<[ExportMetricsServiceRequest; 2], ExportMetricsServiceRequest> {
    let second = match second_half(&mut request.resource_metrics) {
        Some(resources) => resources,
        None => match request.resource_metrics.first_mut().and_then(halve_resource) {
            Some(resource) => vec![resource],
            None => return Err(request),
        },
    };
    Ok([request, ExportMetricsServiceRequest { resource_metrics: second }])
}

fn halve_resource(resource: &mut ResourceMetrics) -> Option<ResourceMetrics> {
    let scope_metrics = match second_half(&mut resource.scope_metrics) {
        Some(scopes) => scopes,
        None => vec![halve_scope(resource.scope_metrics.first_mut()?)?],
    };
    Some(ResourceMetrics {
        resource: resource.resource.clone(),
        scope_metrics,
        schema_url: resource.schema_url.clone(),
    })
}

fn halve_scope(scope: &mut ScopeMetrics) -> Option<ScopeMetrics> {
    let metrics = match second_half(&mut scope.metrics) {
        Some(metrics) => metrics,
        None => vec![halve_metric(scope.metrics.first_mut()?)?],
    };
    Some(ScopeMetrics { scope: scope.scope.clone(), metrics, schema_url: scope.schema_url.clone() })
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
