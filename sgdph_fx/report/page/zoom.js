"use strict";
// How large the graph is drawn, and which piece of it is seen.

const canvas = document.getElementById("canvas");
let scale = 1;

// The smallest scale at which a part can be read, the one at which a part that was asked for is shown, and the largest.
const READABLE = 0.55;
const CLEAR = 0.9;
const LARGEST = 2.5;

function resize() {
  svg.style.width = `${svg.dataset.width * scale}px`;
  svg.style.height = `${svg.dataset.height * scale}px`;
}

function zoom(to) {
  scale = Math.min(LARGEST, Math.max(0.005, to));
  resize();
}

/** Zoom around the middle of what is seen. */
function zoomBy(factor) {
  const middle = { x: canvas.scrollLeft + canvas.clientWidth / 2, y: canvas.scrollTop + canvas.clientHeight / 2 };
  const before = scale;
  zoom(scale * factor);
  canvas.scrollLeft = (middle.x * scale) / before - canvas.clientWidth / 2;
  canvas.scrollTop = (middle.y * scale) / before - canvas.clientHeight / 2;
}

/** As large as fits the frame's width, but not so small that nothing can be read. */
function fitWidth() {
  zoom(Math.max(READABLE, Math.min(1, (canvas.clientWidth - 4) / svg.dataset.width)));
  canvas.scrollLeft = (canvas.scrollWidth - canvas.clientWidth) / 2;
}

function fitWhole() {
  zoom(Math.min(1.5, (canvas.clientWidth - 4) / svg.dataset.width, (canvas.clientHeight - 4) / svg.dataset.height));
}

/** Bring an element of the graph to the middle of its frame, large enough to be read; the page itself stays where it is. */
function bringIntoSight(element) {
  if (scale < CLEAR) zoom(CLEAR);
  const outer = canvas.getBoundingClientRect();
  const inner = element.getBoundingClientRect();
  canvas.scrollBy({
    left: inner.left + inner.width / 2 - outer.left - outer.width / 2,
    top: inner.top + inner.height / 2 - outer.top - outer.height / 2,
  });
}

function scrollIfHidden(element) {
  const outer = canvas.getBoundingClientRect();
  const inner = element.getBoundingClientRect();
  const left = inner.left < outer.left || inner.right > outer.right ? inner.left - outer.left - 20 : 0;
  const top = inner.top < outer.top || Math.min(inner.bottom, inner.top + 60) > outer.bottom ? inner.top - outer.top - 20 : 0;
  canvas.scrollBy({ left, top });
}
