/**
 * Lines over a few places on an axis, as SVG: enough for curves of growth, the same bytes for the same figures. Places stand at
 * equal distances whatever their values, so a series that doubles or multiplies is drawn as on a logarithmic axis.
 */

export interface Line {
  readonly name: string;
  /** One for each place; undefined where there is none. */
  readonly values: readonly (number | undefined)[];
}

export interface Plot {
  readonly title: string;
  readonly xLabel: string;
  readonly yLabel: string;
  readonly places: readonly string[];
  readonly lines: readonly Line[];
}

const [WIDTH, HEIGHT] = [720, 400];
const FRAME = { left: 64, right: 120, top: 40, bottom: 56 };
/** Told apart by people who see few colours (Okabe and Ito). */
const COLOURS = ['#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9'];
const TICKS = 5;
/** Between the baselines of two labels. */
const LABEL_PIXELS = 15;

export function drawPlot({ title, xLabel, yLabel, places, lines }: Plot): string {
  const highest = Math.max(0, ...lines.flatMap(({ values }) => values.filter((value) => value !== undefined)));
  const step = niceStep(highest / TICKS);
  const top = Math.max(step, Math.ceil(highest / step) * step);
  const width = WIDTH - FRAME.left - FRAME.right;
  const height = HEIGHT - FRAME.top - FRAME.bottom;
  const x = (index: number): number => FRAME.left + (width * (index + 0.5)) / places.length;
  const y = (value: number): number => FRAME.top + height * (1 - value / top);

  const ticks = Array.from({ length: Math.round(top / step) + 1 }, (_, i) => i * step);
  const parts = [
    `<title>${escaped(title)}</title>`,
    `<rect width="${WIDTH}" height="${HEIGHT}" fill="#ffffff"/>`,
    text(WIDTH / 2, 22, title, 'middle', 'font-size="15"'),
    ...ticks.flatMap((tick) => [
      `<line x1="${FRAME.left}" x2="${FRAME.left + width}" y1="${pixel(y(tick))}" y2="${pixel(y(tick))}" stroke="#dddddd"/>`,
      text(FRAME.left - 8, y(tick) + 4, number(tick), 'end'),
    ]),
    ...places.map((place, i) => text(x(i), HEIGHT - FRAME.bottom + 20, place, 'middle')),
    text(FRAME.left + width / 2, HEIGHT - 14, xLabel, 'middle'),
    text(0, 0, yLabel, 'middle', `transform="translate(18 ${FRAME.top + height / 2}) rotate(-90)"`),
    ...lines.flatMap((line, i) => drawLine(line, COLOURS[i % COLOURS.length]!, x, y)),
    ...labels(lines, y).map(({ name, at, colour }) =>
      text(FRAME.left + width + 8, at, name, 'start', `fill="${colour}"`),
    ),
  ];
  const attributes = `viewBox="0 0 ${WIDTH} ${HEIGHT}" width="${WIDTH}" height="${HEIGHT}"`;
  const font = 'font-family="system-ui, sans-serif" font-size="12"';
  return `<svg xmlns="http://www.w3.org/2000/svg" ${attributes} ${font}>\n${parts.join('\n')}\n</svg>\n`;
}

function drawLine(
  { values }: Line,
  colour: string,
  x: (index: number) => number,
  y: (value: number) => number,
): readonly string[] {
  const points = values.flatMap((value, i) => (value === undefined ? [] : [[pixel(x(i)), pixel(y(value))] as const]));
  return [
    `<polyline points="${points.map((point) => point.join(',')).join(' ')}" fill="none" stroke="${colour}" stroke-width="2"/>`,
    ...points.map(([cx, cy]) => `<circle cx="${cx}" cy="${cy}" r="3.5" fill="${colour}"/>`),
  ];
}

/** Names of the lines beside their ends, moved apart where they would lie on each other. */
function labels(
  lines: readonly Line[],
  y: (value: number) => number,
): readonly { readonly name: string; readonly at: number; readonly colour: string }[] {
  const wanted = lines
    .map(({ name, values }, i) => ({ name, last: values.findLast((value) => value !== undefined), i }))
    .flatMap(({ name, last, i }) =>
      last === undefined ? [] : [{ name, at: y(last) + 4, colour: COLOURS[i % COLOURS.length]! }],
    )
    .sort((a, b) => b.at - a.at);
  let above = Number.POSITIVE_INFINITY;
  return wanted.map((label) => {
    above = Math.min(label.at, above - LABEL_PIXELS);
    return { ...label, at: above };
  });
}

/** The smallest of 1, 2 and 5 times a power of ten that is not less. */
function niceStep(atLeast: number): number {
  if (atLeast <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(atLeast));
  return power * [1, 2, 5, 10].find((factor) => factor * power >= atLeast * (1 - 1e-9))!;
}

function number(value: number): string {
  return String(Number(value.toPrecision(6)));
}

function pixel(value: number): number {
  return Math.round(value * 10) / 10;
}

function escaped(content: string): string {
  return content.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
}

function text(x: number, y: number, content: string, anchor: string, more = ''): string {
  const place = `x="${pixel(x)}" y="${pixel(y)}" text-anchor="${anchor}"`;
  return `<text ${place}${more === '' ? '' : ` ${more}`}>${escaped(content)}</text>`;
}
