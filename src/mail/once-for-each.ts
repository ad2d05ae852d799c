/**
 * What is derived from an email is derived once, however many ask: emails are never changed. It is kept for as long as the
 * email itself.
 */
export function onceForEach<Email extends object, T>(derive: (email: Email) => T): (email: Email) => T {
  const derived = new WeakMap<Email, { readonly value: T }>();
  return (email) => {
    const known = derived.get(email);
    if (known) return known.value;
    const value = derive(email);
    derived.set(email, { value });
    return value;
  };
}
