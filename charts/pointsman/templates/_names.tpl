{{- define "pointsman.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* `pointsman` for a release of that name; otherwise the release's name goes before it. */}}
{{- define "pointsman.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else -}}
{{- $name := include "pointsman.name" . -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" }}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "pointsman.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (include "pointsman.fullname" .) }}
{{- end }}

{{- define "pointsman.selector" -}}
app.kubernetes.io/name: {{ include "pointsman.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: controller
{{- end }}

{{/* Of everything in the chart. */}}
{{- define "pointsman.commonLabels" -}}
app.kubernetes.io/name: {{ include "pointsman.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: pointsman
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{/* Of what belongs to the controller. */}}
{{- define "pointsman.labels" -}}
{{ include "pointsman.commonLabels" . }}
app.kubernetes.io/component: controller
{{- end }}

{{- define "pointsman.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end }}

{{- define "pointsman.controllerNames" -}}
{{- $names := .Values.controllerNames }}
{{- if .Values.takeOverEnvoyGateway }}
{{- $names = append $names "gateway.envoyproxy.io/gatewayclass-controller" }}
{{- end }}
{{- $names | uniq | toYaml }}
{{- end }}
