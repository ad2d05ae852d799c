/** What a person sees who opens the console without its token. It says nothing about this installation. */
export const unauthorizedPage = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Millrace: token needed</title>
<style>
  :root { color-scheme: light dark; }
  body { font: 16px/1.6 system-ui, sans-serif; max-width: 34rem; margin: 15vh auto; padding: 0 1.5rem; }
  h1 { font-size: 1.4rem; font-weight: 650; letter-spacing: -0.01em; }
  code { font: 0.9em ui-monospace, monospace; background: light-dark(#eef1f1, #232a2b); padding: 0.1em 0.35em; border-radius: 4px; white-space: nowrap; }
  li { margin: 0.4rem 0; }
</style>
</head>
<body>
<main>
<h1>This page needs the admin token</h1>
<p>Open the link that the daemon printed when it started. It ends in <code>?token=…</code> and needs to be opened only once in this browser.</p>
<ul>
<li>Started with <code>npm start</code>: the link is in that terminal, and in <code>daemon.json</code> in its data directory.</li>
<li>On a server: the token is <code>ADMIN_TOKEN</code> in its secrets.</li>
<li>For programs: <code>Authorization: Bearer TOKEN</code>.</li>
</ul>
</main>
</body>
</html>
`;
