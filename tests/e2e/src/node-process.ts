// A node in a process of its own: options as JSON in the first argument, its URL on the first line of stdout.
import { runNode, type NodeOptions } from './node.ts';

const node = await runNode(JSON.parse(process.argv[2] ?? '{}') as NodeOptions);
console.log(node.url);
process.on('SIGTERM', () => void node.stop().then(() => process.exit(0)));
process.on('disconnect', () => process.exit(0)); // never outlives the test
