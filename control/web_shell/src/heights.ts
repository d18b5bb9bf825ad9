// Heights of many rows, with the sum of any first n in O(log n): a Fenwick tree. Pure.

export class Heights {
  #tree = new Float64Array(1025);
  #values = new Float64Array(1024);
  #length = 0;

  get length(): number {
    return this.#length;
  }

  /** Height of all rows, CSS pixels. */
  get total(): number {
    return this.before(this.#length);
  }

  /** Make it `length` rows long; new ones get `estimate`. */
  resize(length: number, estimate: (index: number) => number): void {
    if (length > this.#values.length) this.#grow(length);
    for (let index = this.#length; index < length; index += 1) this.#add(index, estimate(index));
    for (let index = length; index < this.#length; index += 1) this.#add(index, -this.at(index));
    this.#length = length;
  }

  at(index: number): number {
    return this.#values[index] ?? 0;
  }

  set(index: number, height: number): void {
    this.#add(index, height - this.at(index));
  }

  /** Height of the rows before this one. */
  before(index: number): number {
    let sum = 0;
    for (let node = index; node > 0; node -= node & -node) sum += this.#tree[node] ?? 0;
    return sum;
  }

  /** Index of the row at this distance from the top; the last one below the end. */
  find(offset: number): number {
    let index = 0;
    let rest = offset;
    for (let step = this.#values.length; step > 0; step >>= 1) {
      const next = index + step;
      const sum = this.#tree[next];
      if (next <= this.#length && sum !== undefined && sum <= rest) {
        index = next;
        rest -= sum;
      }
    }
    return Math.max(0, Math.min(index, this.#length - 1));
  }

  #add(index: number, change: number): void {
    this.#values[index] = this.at(index) + change;
    for (let node = index + 1; node < this.#tree.length; node += node & -node) {
      this.#tree[node] = (this.#tree[node] ?? 0) + change;
    }
  }

  #grow(length: number): void {
    let capacity = this.#values.length;
    while (capacity < length) capacity *= 2;
    const values = new Float64Array(capacity);
    values.set(this.#values);
    const tree = new Float64Array(capacity + 1);
    for (let node = 1; node <= capacity; node += 1) {
      const parent = node + (node & -node);
      tree[node] = (tree[node] ?? 0) + (values[node - 1] ?? 0);
      if (parent <= capacity) tree[parent] = (tree[parent] ?? 0) + (tree[node] ?? 0);
    }
    this.#values = values;
    this.#tree = tree;
  }
}
