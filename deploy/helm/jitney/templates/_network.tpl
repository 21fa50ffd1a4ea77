{{/* What a Pod's port is called that serves "of": ports of one number are one, and called as the first of them. */}}
{{- define "jitney.portName" -}}
{{- $ports := .root.Values.ports }}
{{- $name := .of }}
{{- range list "http" "grpc" }}
{{- if eq (int (index $ports .)) (int (index $ports $.of)) }}
{{- $name = . }}
{{- end }}
{{- end }}
{{- $name }}
{{- end }}

{{/* The port of a URL: its own, or its scheme's. Stores of clouds are spoken to by HTTPS. */}}
{{- define "jitney.port" -}}
{{- $own := regexFind ":[0-9]+$" (urlParse .).host | trimPrefix ":" }}
{{- $own | default (ternary "80" "443" (hasPrefix "http://" .)) }}
{{- end }}

{{/* The ports that the server asks others on, as a list. */}}
{{- define "jitney.reached" -}}
{{- $ports := list }}
{{- range list .Values.models.url .Values.config.otlp_endpoint }}
{{- with . }}
{{- $ports = append $ports (include "jitney.port" . | int) }}
{{- end }}
{{- end }}
{{- toYaml (uniq $ports) }}
{{- end }}

{{/* Whose store it is, by schemes and hosts as object_store knows them: aws, google, azure, or no cloud's. */}}
{{- define "jitney.cloud" -}}
{{- $url := .Values.models.url | default "" }}
{{- $host := ternary (urlParse $url).hostname "" (hasPrefix "https://" $url) }}
{{- if or (regexMatch "^s3a?://" $url) (hasSuffix "amazonaws.com" $host) -}}
aws
{{- else if hasPrefix "gs://" $url -}}
google
{{- else if or
  (regexMatch "^(az|azure|adl|abfss?)://" $url)
  (regexMatch "(blob|dfs)\\.(core\\.windows\\.net|fabric\\.microsoft\\.com)$" $host) -}}
azure
{{- end }}
{{- end }}

{{/*
Egress rules for where a cloud gives credentials: EC2's and Azure's instances, ECS' tasks and EKS' Pods; and Google's,
by its own address under GKE's Dataplane V2, and by that which the node makes of it under other networks
(docs.cloud.google.com/kubernetes-engine/docs/concepts/workload-identity).
*/}}
{{- define "jitney.credentials" -}}
{{- $instance := "169.254.169.254:80" }}
{{- $places := dict
  "aws" (list $instance "169.254.170.2:80" "169.254.170.23:80")
  "google" (list $instance "169.254.169.252:988")
  "azure" (list $instance) }}
{{- range get $places (include "jitney.cloud" .) | default list }}
{{- $place := splitList ":" . }}
- to:
    - ipBlock:
        cidr: {{ first $place }}/32
  ports:
    - port: {{ last $place }}
      protocol: TCP
{{- end }}
{{- end }}
