{{/* A quantity of Kubernetes as bytes; the schema lets through those whose units are here. */}}
{{- define "jitney.bytes" -}}
{{- $units := dict "" 1 "k" 1000 "M" 1000000 "G" 1000000000 "T" 1000000000000
  "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 }}
{{- $unit := regexFind "[A-Za-z]*$" . }}
{{- mulf (trimSuffix $unit . | float64) (get $units $unit) | floor | int64 }}
{{- end }}

{{/* What may be kept in a volume of a size: more evicts the Pod, and there is more in it than what is counted. */}}
{{- define "jitney.most" -}}
{{- div (mul (include "jitney.bytes" . | int64) 9) 10 }}
{{- end }}

{{/* cache_bytes for a cache whose size is known, unless config has it; nothing where there is nothing to say. */}}
{{- define "jitney.cacheBytes" -}}
{{- if not .Values.cache.claim }}
{{- $config := .Values.config }}
{{- $size := .Values.cache.size }}
{{- $graphs := int64 ($config.graph_cache_bytes | default 0) }}
{{- $models := ternary (int64 ($config.cache_bytes | default 0)) 0 (hasKey .Values.models "url") }}
{{- if gt (add $graphs $models) (include "jitney.bytes" $size | int64) }}
{{- fail (printf "cache.size is %s, which is less than config.cache_bytes and config.graph_cache_bytes take" $size) }}
{{- end }}
{{- if and (hasKey .Values.models "url") (not (hasKey $config "cache_bytes")) }}
{{- $left := sub (include "jitney.most" $size | int64) $graphs }}
{{- if lt $left 1 }}
{{- fail (printf "cache.size is %s, of which config.graph_cache_bytes leaves nothing for models" $size) }}
{{- end }}
{{- $left }}
{{- end }}
{{- end }}
{{- end }}

{{/* The same of max_uploaded_bytes, whose files lie in /tmp; the server takes no more than 1 TiB. */}}
{{- define "jitney.uploadedBytes" -}}
{{- if not (hasKey .Values.config "max_uploaded_bytes") }}
{{- min (include "jitney.most" .Values.tmpSize) 1099511627776 }}
{{- else if gt (int64 .Values.config.max_uploaded_bytes) (include "jitney.bytes" .Values.tmpSize | int64) }}
{{- fail (printf "tmpSize is %s, which is less than config.max_uploaded_bytes" .Values.tmpSize) }}
{{- end }}
{{- end }}
