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
  form { display: flex; flex-wrap: wrap; align-items: center; gap: 0.6rem; margin: 1.2rem 0; }
  input, button { font: inherit; padding: 0.35rem 0.7rem; border: 1px solid light-dark(#879591, #6b7b78); border-radius: 8px; }
  input { flex: 1; min-width: 10rem; }
</style>
</head>
<body>
<main>
<h1>This page needs the admin token</h1>
<form method="get" action="/">
<label for="token">Token</label>
<input id="token" name="token" type="password" autocomplete="current-password" required autofocus>
<button>Open</button>
</form>
<p>It is needed only once in this browser.</p>
<ul>
<li>Started with <code>npm start</code>: open the link in that terminal, which ends in <code>?token=…</code>.</li>
<li>On a server: the token is <code>ADMIN_TOKEN</code> in its secrets.</li>
<li>For programs: <code>Authorization: Bearer TOKEN</code>.</li>
</ul>
</main>
</body>
</html>
`;
