/**
 * What is derived from a thing that is never changed, such as an email or a record, is derived once, however many ask. It is
 * kept for as long as the thing itself; what throws is tried anew.
 */
export function onceForEach<Thing extends object, T>(derive: (thing: Thing) => T): (thing: Thing) => T {
  const derived = new WeakMap<Thing, { readonly value: T }>();
  return (thing) => {
    const known = derived.get(thing);
    if (known) return known.value;
    const value = derive(thing);
    derived.set(thing, { value });
    return value;
  };
}
