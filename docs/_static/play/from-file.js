/* Says why a page that was opened as a file stays empty: there a browser loads no modules. Not a module itself. */
if (location.protocol === "file:") {
  document.querySelector(".play-status").textContent = "This page is alive when a server sends it, not opened as a file: "
    + "python -m http.server, in the folder of index.html, then http://localhost:8000 in the browser.";
}
