// What a dashboard must be as JSON. The test adds one `export const` for each dashboard and panel.
import type { Dashboard, Panel, RowPanel } from "@grafana/schema";
import type { Options as StatOptions } from "@grafana/schema/dist/types/raw/composable/stat/panelcfg/x/types.gen";
import type { Options as BarGaugeOptions } from "@grafana/schema/dist/types/raw/composable/bargauge/panelcfg/x/types.gen";
import type {
  FieldConfig as LineConfig,
  Options as LineOptions,
} from "@grafana/schema/dist/types/raw/composable/timeseries/panelcfg/x/types.gen";
import type { Options as TableOptions } from "@grafana/schema/dist/types/raw/composable/table/panelcfg/x/types.gen";

// JSON has the values of enumerations, not their names; `null` is as good as minus infinity.
type Json<T> = T extends string
  ? `${T}`
  : T extends boolean
    ? T
    : T extends number
      ? number
      : T extends (infer Item)[]
        ? Json<Item>[]
        : T extends object
          ? { [Key in keyof T]: Json<T[Key]> }
          : T;

interface PrometheusTarget {
  refId: string;
  datasource: { type: "prometheus"; uid: string };
  expr: string;
  legendFormat: string;
  editorMode: "code" | "builder";
  format: "time_series" | "table" | "heatmap";
  instant: boolean;
  range: boolean;
}
interface Steps {
  mode: "absolute";
  steps: { color: string; value: number | null }[];
}
type Defaults = Omit<NonNullable<Panel["fieldConfig"]>["defaults"], "thresholds" | "custom">;
interface Typed<Kind extends string, Options, Custom = never>
  extends Omit<Json<Omit<Panel, "fieldConfig" | "options" | "targets" | "type">>, never> {
  type: Kind;
  targets: PrometheusTarget[];
  options: Json<Options>;
  fieldConfig: {
    defaults: Json<Defaults> & { thresholds: Steps; custom?: Json<Custom> };
    overrides: { matcher: { id: "byName"; options: string }; properties: { id: string; value: string }[] }[];
  };
}
export type AnyPanel =
  | Typed<"stat", StatOptions>
  | Typed<"bargauge", BarGaugeOptions>
  | Typed<"table", TableOptions>
  | Typed<"timeseries", LineOptions, LineConfig>
  | Json<RowPanel>;
export type AnyDashboard = Omit<Json<Dashboard>, "panels"> & { panels: AnyPanel[] };

