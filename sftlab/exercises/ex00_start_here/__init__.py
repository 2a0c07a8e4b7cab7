"""How does this workbook work, and where do I stand?"""
