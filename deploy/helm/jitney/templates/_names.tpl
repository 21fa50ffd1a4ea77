{{/* What the release's objects are called. */}}
{{- define "jitney.name" -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" }}
{{- end }}

{{/* By these the release's Pods are found; they may never change. */}}
{{- define "jitney.selector" -}}
app.kubernetes.io/name: jitney
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* By this, beside the selector, the Service of metrics is found among the release's. */}}
{{- define "jitney.metrics" -}}
app.kubernetes.io/component: metrics
{{- end }}

{{- define "jitney.labels" -}}
{{ include "jitney.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "jitney.metadata" -}}
name: {{ include "jitney.name" . }}
namespace: {{ .Release.Namespace }}
labels:
  {{- include "jitney.labels" . | nindent 2 }}
{{- end }}

{{- define "jitney.account" -}}
{{- if .Values.serviceAccount.create }}
{{- .Values.serviceAccount.name | default (include "jitney.name" .) }}
{{- else }}
{{- .Values.serviceAccount.name | default "default" }}
{{- end }}
{{- end }}

{{- define "jitney.image" -}}
{{- $flavour := ternary "-cuda" "" (gt (int .Values.gpus.count) 0) }}
{{- if .Values.image.digest }}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" .Values.image.repository (.Values.image.tag | default (print .Chart.AppVersion $flavour)) }}
{{- end }}
{{- end }}

{{/* Seconds that leaving takes at most, rounded up, and the margin. */}}
{{- define "jitney.grace" -}}
{{- $leaving := add (int .Values.leaving.lameDuckMs) (int .Values.leaving.drainTimeoutMs) }}
{{- add (div (add $leaving 999) 1000) (int .Values.leaving.marginSeconds) }}
{{- end }}

{{/* The name under which health says that the process answers, whatever it has loaded. */}}
{{- define "jitney.live" -}}
inference.GRPCInferenceService/ServerLive
{{- end }}

{{/* How health is asked: of the process where "live", or else of the server. By TLS, the container asks itself. */}}
{{- define "jitney.probe" -}}
{{- $port := .root.Values.ports.grpc }}
{{- if .root.Values.tls.secret -}}
exec:
  command:
    - /usr/local/bin/jitney
    - probe
    - --grpc-address=127.0.0.1:{{ $port }}
    - --timeout-ms={{ mul .of.timeoutSeconds 1000 }}
    {{- if .live }}
    - --live
    {{- end }}
{{- else -}}
grpc:
  port: {{ $port }}
  {{- if .live }}
  service: {{ include "jitney.live" .root }}
  {{- end }}
{{- end }}
{{- end }}

{{/* What a port speaks, without TLS as it is given. */}}
{{- define "jitney.speaks" -}}
{{- ternary "https" .plain (ne .root.Values.tls.secret "") }}
{{- end }}
