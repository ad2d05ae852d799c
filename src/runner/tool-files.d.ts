/** Files that a tool may import beside code and JSON: as text, or as their bytes, which an attachment takes as they are. */
declare module '*.txt' {
  const text: string;
  export default text;
}
declare module '*.html' {
  const text: string;
  export default text;
}
declare module '*.md' {
  const text: string;
  export default text;
}
declare module '*.csv' {
  const text: string;
  export default text;
}
declare module '*.svg' {
  const text: string;
  export default text;
}
declare module '*.png' {
  const bytes: Uint8Array;
  export default bytes;
}
declare module '*.jpg' {
  const bytes: Uint8Array;
  export default bytes;
}
declare module '*.gif' {
  const bytes: Uint8Array;
  export default bytes;
}
declare module '*.pdf' {
  const bytes: Uint8Array;
  export default bytes;
}
declare module '*.css';
