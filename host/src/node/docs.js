// Starts the page with this server's document.
"use strict";

/** Shows an example of NDJSON as its lines. The page would quote the text, as if it were one JSON value. */
const Lines = () => ({
  afterLoad() {
    const sample = this.fn.getSampleSchema;
    this.fn.getSampleSchema = (schema, mediaType, settings, example) =>
      mediaType === "application/x-ndjson" && typeof example === "string"
        ? example
        : sample(schema, mediaType, settings, example);
  },
});

window.onload = () => {
  window.ui = SwaggerUIBundle({
    url: "/openapi.json",
    dom_id: "#swagger-ui",
    deepLinking: true,
    presets: [SwaggerUIBundle.presets.apis],
    plugins: [Lines],
    validatorUrl: null,
  });
};
