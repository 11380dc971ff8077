{{- define "inferencepool.pool" -}}
{{- .Values.pool.name | default .Release.Name }}
{{- end }}

{{- define "inferencepool.picker" -}}
{{- $picked := printf "%s-picker" (include "inferencepool.pool" . | trunc 56 | trimSuffix "-") }}
{{- .Values.picker.name | default $picked }}
{{- end }}

{{- define "inferencepool.serviceAccount" -}}
{{- .Values.picker.serviceAccount.name | default (include "inferencepool.picker" .) }}
{{- end }}

{{- define "inferencepool.route" -}}
{{- .Values.httpRoute.name | default (include "inferencepool.pool" .) }}
{{- end }}

{{- define "inferencepool.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: picker
{{- end }}

{{/* Of everything in the chart. */}}
{{- define "inferencepool.labels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: pointsman
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{/* Of what belongs to the picker. */}}
{{- define "inferencepool.pickerLabels" -}}
{{ include "inferencepool.labels" . }}
app.kubernetes.io/component: picker
{{- end }}

{{- define "inferencepool.image" -}}
{{- with .Values.picker.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end -}}
{{- end -}}
{{- end }}

{{/* Of a pool, for objectives and rewrites. */}}
{{- define "inferencepool.poolRef" -}}
poolRef:
  group: inference.networking.k8s.io
  kind: InferencePool
  name: {{ include "inferencepool.pool" . }}
{{- end }}
