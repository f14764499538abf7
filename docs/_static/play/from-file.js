/* Says why a page that was opened as a file stays empty: browsers load no modules from files. Not a module itself. */
if (location.protocol === "file:") {
  document.querySelector(".play-status").textContent = "This page does not work when it is opened as a file. Run "
    + "python -m http.server in the folder of index.html and open http://localhost:8000 in the browser.";
}
