// The canvas's icons, as the content of a 24 by 24 SVG.

export const ICONS = {
  brush: '<path d="M14.5 4.5 19.5 9.5 11 18c-1 1-2.600 1-4 2-1 .7-2.500 1-4 1 1-1 1-2 1.500-3.500C5 16 5 14.500 6 13.500Z"/><path d="m12 7 5 5"/>',
  eraser: '<path d="M8.500 20 3.700 15.200a1.500 1.500 0 0 1 0-2.100l8.600-8.600a1.500 1.500 0 0 1 2.100 0l5.100 5.100a1.500 1.500 0 0 1 0 2.100L11.200 20Z"/><path d="m8 9 7 7M8.500 20H20"/>',
  lasso: '<path d="M12 4c5 0 8.500 2.500 8.500 5.500S17 15.500 12 15.500 3.500 12.500 3.500 9.500 7 4 12 4Z"/><path d="M7 14.500c-1.500.5-2.500 1.500-2 3s2 2 2 3.500"/>',
  polygon: '<path d="m5 18 2-11 8-3 4 8-6 8Z"/>',
  snap: '<path d="M12 4c5 0 8.500 2.500 8.500 5.500M3.500 9.500C3.500 6.500 7 4 12 4M3.500 9.500c0 2 1.500 3.700 4 4.700"/><path d="M12 12v4.500a3 3 0 0 0 6 0V12h3v4.500a6 6 0 0 1-12 0V12Z"/><path d="M9 15h3M18 15h3"/>',
  rectangle: '<rect x="4" y="5.500" width="16" height="13" rx="1"/>',
  ellipse: '<ellipse cx="12" cy="12" rx="8.500" ry="6.500"/>',
  fill: '<path d="m5 12 7-7 7 7-6 6a1.500 1.500 0 0 1-2 0Z"/><path d="M12 5 9.500 2.500M5 12h14"/><path d="M20.500 16c1 1.500 1.500 2.300 1.500 3a1.500 1.500 0 0 1-3 0c0-.7.5-1.500 1.500-3Z"/>',
  colours: '<path d="m4 20 9-9M13 4v3M13 14v3M6.500 10.500h3M16.500 10.500h3M8.300 5.800l2 2M17.700 5.800l-2 2M17.700 15.200l-2-2"/>',
  extend: '<rect x="8" y="8" width="8" height="8" rx="1"/><path d="M5 12H2m0 0 1.500-1.500M2 12l1.500 1.500M19 12h3m0 0-1.500-1.500M22 12l-1.500 1.500M12 5V2m0 0-1.500 1.500M12 2l1.500 1.500M12 19v3m0 0-1.500-1.500M12 22l1.500-1.500"/>',
  foresee: '<path d="M7 3v14h14M3 7h14v14"/>',
  gradient: '<rect x="4" y="5.500" width="16" height="13" rx="1"/><path d="M7.500 6v12M10 6v12M13.500 6v12M18 6v12" stroke-width="1"/><path d="M4.500 6h3v12h-3z" fill="currentColor"/>',
  object: '<path d="M4 8V4h4M16 4h4v4M20 16v4h-4M8 20H4v-4"/><path d="M8 14.500c-.7-3 1.300-6.500 4-6.500s4.700 3.500 4 6.500c-.5 2-7.500 2-8 0Z" fill="currentColor" stroke="none"/>',
  clicks: '<path d="m10 9 9.500 3.700-4.200 1.600-1.600 4.200Z"/><path d="M7 2.500v3M7 8.500v3M2.500 7h3M8.500 7h3"/>',
  change: '<path d="M4 7h9M17 7h3M4 17h3M11 17h9"/><circle cx="15" cy="7" r="2"/><circle cx="9" cy="17" r="2"/>',
  settings: '<circle cx="12" cy="12" r="3"/><path d="M12 3.500v3M12 17.500v3M3.500 12h3M17.500 12h3M6 6l2.100 2.100M15.900 15.900 18 18M18 6l-2.100 2.100M8.100 15.900 6 18"/>',
  more: '<circle cx="6" cy="12" r="1"/><circle cx="12" cy="12" r="1"/><circle cx="18" cy="12" r="1"/>',
  eyedropper: '<path d="m13.500 6.500 4 4M12 8l4 4-8 8H4v-4Z"/><path d="m14.500 9.500 3.700-3.700a1.900 1.900 0 0 0-2.700-2.700L11.800 6.800"/>',
  undo: '<path d="M9 14 4 9l5-5"/><path d="M4 9h10a6 6 0 0 1 0 12h-3"/>',
  redo: '<path d="m15 14 5-5-5-5"/><path d="M20 9H10a6 6 0 0 0 0 12h3"/>',
  clear: '<path d="M4 7h16M10 11v6M14 11v6M6 7l1 13h10l1-13M9 7V4h6v3"/>',
  invert: '<circle cx="12" cy="12" r="8.500"/><path d="M12 3.500a8.500 8.500 0 0 1 0 17Z" fill="currentColor"/>',
  fit: '<path d="M9 4H4v5M15 4h5v5M9 20H4v-5M15 20h5v-5"/>',
  picture: '<rect x="3.500" y="4.500" width="17" height="15" rx="2"/><circle cx="8.500" cy="9.500" r="1.500"/><path d="m4 17 5-4.500 3.500 3 3.500-4 4.500 5"/>',
  earlier: '<path d="m14 6-6 6 6 6"/>',
  later: '<path d="m10 6 6 6-6 6"/>',
  remove: '<path d="m6 6 12 12M18 6 6 18"/>',
  eye: '<path d="M2.500 12S6 5.500 12 5.500 21.500 12 21.500 12 18 18.500 12 18.500 2.500 12 2.500 12Z"/><circle cx="12" cy="12" r="2.500"/>',
};

export const icon = (name) => `<svg viewBox="0 0 24 24" aria-hidden="true">${ICONS[name]}</svg>`;
